# The rules of six.cedar, on the documented input (policy/input.schema.json).
# Cedar's semantics: by default deny, a forbid wins, and the determining rules
# are those of the effect that won.
package lineal

permits contains "finance-db-read" if {
	input.action == "mcp:tools/call"
	input.resource.id == "crm-db/run_sql"
	input.context.chain.root in data.groups.finance
	input.context.sql.kind == "select"
	"spiffe://acme/research" in input.context.chain.agents
}

permits contains "model-allow-list" if {
	input.action == "llm:chat"
	input.principal.id in data.groups.agents
	input.resource.id in {"eu/large", "eu/small"}
	count(input.context.llm.hosted_tools) == 0
}

permits contains "small-payments" if {
	input.action == "mcp:tools/call"
	input.resource.id == "pay/transfer"
	input.context.args.amount <= 500
}

permits contains "discovery" if {
	input.resource.type == "Service"
	input.principal.id in data.groups.agents
}

forbids contains "depth-limit" if input.context.chain.depth > 3

forbids contains "no-production-writes" if {
	production
	write
}

forbids contains "business-hours" if {
	production
	input.resource.type != "Service"
	not open
}

forbids contains "two-hands" if {
	"spiffe://acme/payment-maker" in input.context.chain.agents
	"spiffe://acme/payment-checker" in input.context.chain.agents
}

production if data.environments[input.resource.service] == "production"

open if {
	input.context.env.weekday <= 5
	input.context.env.minute >= 480
	input.context.env.minute < 1080
}

# A tool is of unknown effect unless it was approved as one that reads.
write if {
	input.action == "mcp:tools/call"
	not input.resource.id in data.reading
}

# A tool that nobody approved has no rules at all: the decision is undefined.
approved if input.action != "mcp:tools/call"

approved if input.resource.id in data.approved

allow if {
	count(forbids) == 0
	count(permits) > 0
}

decision := {"allow": true, "rules": permits} if {
	approved
	allow
} else := {"allow": false, "rules": forbids} if approved

