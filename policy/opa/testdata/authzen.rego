# An AuthZEN evaluation by the same rules: the request's parts are put back into
# the documented input.
package authzen

subject := object.union(
	object.get(input.subject, "properties", {}),
	{"type": input.subject.type, "id": input.subject.id},
)

resource := object.union(
	object.get(input.resource, "properties", {}),
	{"type": input.resource.type, "id": input.resource.id},
)

document := {
	"version": input.context.version,
	"principal": subject,
	"action": input.action.name,
	"resource": resource,
	"context": object.remove(input.context, ["version"]),
}

# Undefined where the rules are: the decision point then has no decision.
decision := d if d := data.lineal.decision with input as document
