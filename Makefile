# What takes too long for each change. Everything else is .ci/run.

.PHONY: faults
faults: ## break the ledger at every step, not at a sample of them
	.ci/faults all
