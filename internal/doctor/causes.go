package doctor

// Code is the stable name of a cause, for programs.
type Code string

// The causes, in the order of the steps that find them.
const (
	CodeConfigUnreadable Code = "config_unreadable"
	CodeConfigInvalid    Code = "config_invalid"
	CodeIssuerSlash      Code = "issuer_slash"
	CodeTrustDomain      Code = "trust_domain_mismatch"

	CodeHostUnknown     Code = "host_unknown"
	CodeDNSUnavailable  Code = "dns_unavailable"
	CodePortRefused     Code = "port_refused"
	CodePortUnreachable Code = "port_unreachable"

	CodeWorkloadAPI    Code = "workload_api_unavailable"
	CodeUnregistered   Code = "workload_unregistered"
	CodeClockSkew      Code = "clock_skew"
	CodeSVIDExpired    Code = "svid_expired"
	CodeSVIDEarly      Code = "svid_not_yet_valid"
	CodeServerIdentity Code = "server_identity"
	CodeServerExpired  Code = "server_certificate_expired"
	CodeServerTrust    Code = "server_untrusted"
	CodeSVIDRefused    Code = "svid_refused"
	CodeTLS            Code = "tls_failed"

	CodeDiscovery       Code = "discovery_failed"
	CodeIssuerMismatch  Code = "issuer_mismatch"
	CodeSignInMissing   Code = "sign_in_missing"
	CodeSignInExpired   Code = "sign_in_expired"
	CodeDelegation      Code = "delegation_invalid"
	CodeAudience        Code = "audience_mismatch"
	CodeAudienceUnknown Code = "audience_unknown"
	CodeRoute           Code = "route_unknown"
	CodeResource        Code = "resource_mismatch"

	CodeUnchallenged Code = "challenge_missing"
	CodeRenamed      Code = "challenge_renamed"
	CodeMetadata     Code = "metadata_failed"
	CodeNoLogin      Code = "login_unavailable"

	CodeAgentUnknown  Code = "agent_unknown"
	CodeAgentDisabled Code = "agent_disabled"
	CodeSubject       Code = "subject_refused"
	CodeTarget        Code = "target_refused"
	CodeAuthority     Code = "authority_refused"
	CodeExchange      Code = "exchange_refused"
	CodeUnavailable   Code = "token_service_unavailable"

	CodePolicy   Code = "policy_denied"
	CodeScope    Code = "insufficient_scope"
	CodeRevoked  Code = "token_revoked"
	CodeToken    Code = "token_refused"
	CodeProof    Code = "proof_refused"
	CodeUpstream Code = "upstream_failed"
	CodeRefused  Code = "call_refused"

	CodeUnexpected Code = "unexpected"
)

// cause is why a step fails and what to do, in one sentence each.
type cause struct{ why, do string }

// causes is the one table of them.
var causes = map[Code]cause{
	CodeConfigUnreadable: {"The configuration cannot be read.", "Give the sidecar's file with --config; docs/CONFIG.md, Sidecar, has every key."},
	CodeConfigInvalid:    {"The configuration holds what cannot be.", "Mend each of the lines above; docs/CONFIG.md, Sidecar, says what they take."},
	CodeIssuerSlash:      {"The issuer has a final slash that the token service's does not have, or the other way round: they are different names.", "Write `issuer` exactly as the token service publishes it, without a slash at the end."},
	CodeTrustDomain:      {"Two of the identities here are of different trust domains.", "Set `trust_domain` to the domain of the agent's SPIFFE ID, and gateway_id and tokens_id to IDs in it."},

	CodeHostUnknown:     {"DNS has no such host.", "Correct the host in `gateway` or `issuer`, or add its record; inside a cluster use the service's full name."},
	CodeDNSUnavailable:  {"DNS does not answer.", "Look at the resolver of this machine or container (/etc/resolv.conf), and whether port 53 is let through."},
	CodePortRefused:     {"Nothing listens at this port.", "Correct the port, or start the service: `lineal serve`."},
	CodePortUnreachable: {"The host does not answer at this port: what is between drops the packets.", "Let this agent's network reach the port: firewall, NetworkPolicy, security group."},

	CodeWorkloadAPI:    {"The SPIFFE Workload API does not answer.", "Start the SPIFFE agent of this machine, mount its socket, and correct `spiffe_socket`."},
	CodeUnregistered:   {"The Workload API answers and has no identity for this process.", "Register the workload with selectors that this process has; SPIRE needs about five seconds after that."},
	CodeClockSkew:      {"The clocks of this machine and of the far side differ by more than is allowed.", "Set the clock of whichever is wrong, and keep it by NTP."},
	CodeSVIDExpired:    {"The agent's own certificate has ended, and its Workload API gives no newer one.", "Restart the SPIFFE agent of this machine and look at its log: it does not reach its server."},
	CodeSVIDEarly:      {"The agent's own certificate is not valid yet.", "Set the clock of the machine that issues certificates."},
	CodeServerIdentity: {"Another workload answers at this address than the one that is configured.", "Correct gateway_id or tokens_id, or the address; do not go on before you know who answers there."},
	CodeServerExpired:  {"The server's certificate has ended or is not valid yet.", "Restart the SPIFFE agent at the server, which does not renew it."},
	CodeServerTrust:    {"The server's certificate is not of an authority of this trust domain.", "Connect both ends to the same SPIFFE trust domain; a proxy between must pass TLS through."},
	CodeSVIDRefused:    {"The server ended the handshake after it saw the agent's certificate.", "Connect both ends to the same SPIFFE trust domain; its log names what it did not accept."},
	CodeTLS:            {"TLS was not agreed on.", "See whether a proxy between ends TLS itself; it must pass it through."},

	CodeDiscovery:       {"The token service does not publish its metadata at its issuer.", "Correct `issuer`: it is the token service's URL with its path, such as https://tokens.acme.example/sts."},
	CodeIssuerMismatch:  {"The token service is another issuer than the one that is configured.", "Write `issuer` exactly as the token service publishes it."},
	CodeSignInMissing:   {"There is no sign-in to call on behalf of.", "Write the person's ID token to `id_token_file`, or let `lineal run --as` sign in."},
	CodeSignInExpired:   {"The person's sign-in has ended.", "Have the person sign in again."},
	CodeDelegation:      {"The delegation that the agent was handed does not verify.", "Copy Lineal-Delegation from the call that is being served, whole and while it lasts."},
	CodeAudience:        {"The delegation that the agent was handed is for another audience.", "Set `audience` to the agent's own resource identifier: its route at the gateway, scheme and host included."},
	CodeAudienceUnknown: {"The configured audience is no resource of this gateway.", "Set `audience` to the agent's own resource identifier: its route at the gateway, scheme and host included."},
	CodeRoute:           {"The gateway has no such route.", "Correct `routes[].path`, or add the upstream to the gateway's configuration."},
	CodeResource:        {"The gateway names this route by another URL than the agent does.", "Write `gateway` exactly as the gateway's public_url."},

	CodeUnchallenged: {"A call without a token is not answered by 401 and a challenge that says where to get one.", "See that the URL leads to the gateway and not past it, and that no proxy between answers itself or drops WWW-Authenticate."},
	CodeRenamed:      {"A proxy renames WWW-Authenticate on its way: clients that wait for it find no login.", "Have the proxy pass the header as it is, or map it back."},
	CodeMetadata:     {"The resource's metadata, which the challenge names, cannot be read.", "Let the path /.well-known/ through to the gateway, without a token."},
	CodeNoLogin:      {"The token service logs nobody in directly, or without PKCE.", "Configure `tokens.login`, or register the client as an agent with an identity."},

	CodeAgentUnknown:  {"The token service does not know this agent.", "Register it: `lineal agent add`, or `agents` in the token service's configuration."},
	CodeAgentDisabled: {"The agent is disabled: an operator has stopped it.", "Ask the operators why; `lineal agent enable` lets it take part again."},
	CodeSubject:       {"The token service does not accept the sign-in or the delegation from this agent.", "For a sign-in: its provider and client must be registered for this agent. For a delegation: it must be for this agent's audience, and neither ended nor revoked."},
	CodeTarget:        {"The token service does not let this agent call this resource.", "See that the route is registered as a resource, and that its `callers` name this agent, or nobody."},
	CodeAuthority:     {"What the route asks for is more than the agent may ever hold, or than was delegated to it.", "Ask for less in `routes[].authorization_details`, or widen the agent's authority: `lineal agent set --authority`."},
	CodeExchange:      {"The token service refuses the exchange.", "Its record says why: `lineal records --agent` at the token service."},
	CodeUnavailable:   {"The token service cannot answer now.", "Look at its /readyz: it names what it waits for."},

	CodePolicy:   {"The operator's policy does not permit this call.", "Ask for a rule that permits it; the record names the deciding one: `lineal policy explain` with the id of the request."},
	CodeScope:    {"The token holds less than this call needs.", "Ask for what the call needs in `routes[].authorization_details`."},
	CodeRevoked:  {"The gateway does not accept a token that was just issued: the agent, the person or the certificate is revoked.", "Ask the operators why: `lineal revoke list` has the entry, and the record of the call the finer code."},
	CodeToken:    {"The gateway does not accept the token: it has ended, is revoked, or is for another resource.", "Have the person log in again; the record of the call has the finer code."},
	CodeProof:    {"The token is bound to another key than this connection proves.", "A proxy between must pass TLS through, or the route must take DPoP."},
	CodeUpstream: {"The gateway let the call through and what stands behind it did not serve it.", "Look at the upstream, and at the gateway's credential for it."},
	CodeRefused:  {"The gateway refuses the call.", "Its record says why: `lineal trace` with the id of the request."},

	CodeUnexpected: {"The step ended in a way that has no name.", "Please report it, with what was seen."},
}
