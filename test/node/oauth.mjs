// OAuth clients of other makes against the token service of a running demo.
// They know nothing of Lineal but its metadata and their own certificates.
//
//   node oauth.mjs DATA_DIR CERTS_DIR
//
// DATA_DIR holds deployment.json; CERTS_DIR/AGENT/{cert,key,ca}.pem are what
// `lineal token cert` wrote. openid-client logs a person in; oauth4webapi and
// openid-client discover (RFC 8414) and exchange two hops (RFC 8693), once bound
// by certificate (RFC 8705) and once by DPoP (RFC 9449); jose verifies every
// token and receipt; then the tokens are introspected and revoked. Each thing
// that works has a twin that is refused. It prints what it did as one line.
import { readFileSync } from "node:fs";
import { createHash, X509Certificate } from "node:crypto";
import assert from "node:assert/strict";
import { Agent, fetch as undiciFetch } from "undici";
import * as oauth from "oauth4webapi";
import * as openid from "openid-client";
import * as jose from "jose";
import * as dpop from "dpop";

const [dataDir, certsDir] = process.argv.slice(2);
const deployment = JSON.parse(readFileSync(`${dataDir}/deployment.json`, "utf8"));
const grant = "urn:ietf:params:oauth:grant-type:token-exchange";
const accessToken = "urn:ietf:params:oauth:token-type:access_token";
const idTokenType = "urn:ietf:params:oauth:token-type:id_token";
const done = { discovered: 0, issued: [], validated: 0, receipts: 0, introspected: 0, revoked: [], nonces: 0, refused: {}, unissued: 0 };

function fetchBy(dispatcher) {
  return async (url, init) => {
    const response = await undiciFetch(url, { ...init, dispatcher });
    if (String(url) === deployment.token_url && response.status !== 200) done.unissued++; // each must be in the records
    return response;
  };
}

// An agent is its certificate: the OAuth client, and how it connects.
function agentOf(name) {
  const { uri } = deployment.agents.find((a) => a.name === name);
  const [cert, key, ca] = ["cert", "key", "ca"].map((f) => readFileSync(`${certsDir}/${name}/${f}.pem`));
  const dispatcher = new Agent({ connect: { ca, cert, key } });
  const fetch = fetchBy(dispatcher);
  const thumbprint = createHash("sha256").update(new X509Certificate(cert).raw).digest("base64url");
  return { name, uri, fetch, thumbprint, dispatcher, client: { client_id: uri }, options: { [oauth.customFetch]: fetch } };
}
const [app, orchestrator, research] = ["app", "orchestrator", "research"].map(agentOf);
const anonymousDispatcher = new Agent({ connect: { ca: readFileSync(`${certsDir}/app/ca.pem`) } });
const anonymous = fetchBy(anonymousDispatcher);

const route = (name) => deployment.routes.find((r) => r.name === name);
const detail = (name) => route(name).authorization_details[0];
const sha256 = (text) => createHash("sha256").update(text).digest("base64url");
// H is the hash by which receipts name tokens and receipts: of what is signed.
const H = (jws) => sha256(jws.slice(0, jws.lastIndexOf(".")));

// refused waits for the error, by its OAuth code and status.
async function refused(what, code, status, promise) {
  const error = await promise.then(
    () => assert.fail(`${what}: not refused`),
    (e) => e,
  );
  if (error instanceof assert.AssertionError) throw error;
  const got = error.error ?? error.cause?.[0]?.parameters?.error;
  assert.equal(got, code, `${what}: ${error} ${JSON.stringify(error.cause)}`);
  assert.equal(error.status ?? error.response?.status, status, what);
  done.refused[what] = code;
}

// The person logs in at the provider, as a browser does.
async function login(clientID, username) {
  const provider = await openid.discovery(new URL(deployment.oidc_issuer), clientID, undefined, openid.None(), {
    execute: [openid.allowInsecureRequests], // the provider of a demo is on loopback
  });
  const verifier = openid.randomPKCECodeVerifier();
  const [state, nonce] = [openid.randomState(), openid.randomNonce()];
  let at = openid.buildAuthorizationUrl(provider, {
    redirect_uri: deployment.oidc_redirect,
    scope: "openid",
    max_age: "300",
    code_challenge: await openid.calculatePKCECodeChallenge(verifier),
    code_challenge_method: "S256",
    state,
    nonce,
  });
  const cookies = new Map();
  let init = {};
  for (let i = 0; !at.href.startsWith(deployment.oidc_redirect); i++) {
    assert.ok(i < 10, "too many redirects");
    const cookie = [...cookies].map(([k, v]) => `${k}=${v}`).join("; ");
    const page = await fetch(at, { redirect: "manual", ...init, headers: { cookie } });
    for (const c of page.headers.getSetCookie()) {
      const [, name, value] = /^([^=]+)=([^;]*)/.exec(c);
      cookies.set(name, value);
    }
    init = {};
    if (page.status >= 300 && page.status < 400) {
      at = new URL(page.headers.get("location"), at);
      continue;
    }
    const html = await page.text();
    assert.equal(page.status, 200, html);
    const form = /<form[^>]*action="([^"]*)"/.exec(html);
    assert.ok(form, `a login page: ${html}`);
    const fields = new URLSearchParams();
    for (const [tag] of html.matchAll(/<input[^>]*type="hidden"[^>]*>/g)) {
      fields.set(/name="([^"]*)"/.exec(tag)[1], /value="([^"]*)"/.exec(tag)[1]);
    }
    fields.set("username", username);
    fields.set("password", deployment.users.find((u) => u.username === username).password);
    at = new URL(form[1].replaceAll("&amp;", "&"), at);
    init = { method: "POST", body: fields };
  }
  const tokens = await openid.authorizationCodeGrant(provider, at, {
    pkceCodeVerifier: verifier,
    expectedState: state,
    expectedNonce: nonce,
    maxAge: 300,
    idTokenExpected: true,
  });
  assert.ok(tokens.claims().auth_time > 0);
  return tokens.id_token;
}

// Discovery, by both libraries: RFC 8414, with the issuer's path.
const issuer = new URL(deployment.issuer);
const as = await oauth.processDiscoveryResponse(
  issuer,
  await oauth.discoveryRequest(issuer, { algorithm: "oauth2", [oauth.customFetch]: anonymous }),
);
assert.equal(as.token_endpoint, deployment.token_url);
for (const [member, value] of Object.entries({
  grant_types_supported: grant,
  token_endpoint_auth_methods_supported: "spiffe_x509",
  authorization_details_types_supported: "urn:lineal:call:v1",
  dpop_signing_alg_values_supported: "ES256",
})) {
  assert.ok(as[member]?.includes(value), `metadata: ${member} lists ${value}`);
}
assert.equal(as.tls_client_certificate_bound_access_tokens, true);
assert.ok(as.introspection_endpoint && as.revocation_endpoint, "metadata: introspection and revocation");
const relyingParty = await openid.discovery(issuer, orchestrator.uri, undefined, openid.TlsClientAuth(), {
  algorithm: "oauth2",
  [openid.customFetch]: orchestrator.fetch,
});
assert.equal(relyingParty.serverMetadata().jwks_uri, as.jwks_uri);
done.discovered = 2;

const keys = jose.createRemoteJWKSet(new URL(as.jwks_uri), { [jose.customFetch]: anonymous });

// verify is jose's view of a token: signature, type, issuer, audience, times.
async function verify(raw, audience) {
  const { payload } = await jose.jwtVerify(raw, keys, {
    issuer: as.issuer,
    audience,
    typ: "at+jwt",
    algorithms: ["ES256"],
    requiredClaims: ["sub", "client_id", "act", "cnf", "jti", "iat", "exp", "txn"],
  });
  done.validated++;
  return payload;
}

async function verifyReceipt(raw) {
  const { payload } = await jose.jwtVerify(raw, keys, {
    issuer: as.issuer,
    typ: "delegation-receipt+jwt",
    algorithms: ["ES256"],
    requiredClaims: ["txn", "del", "tok_hash", "req", "pol"],
  });
  done.receipts++;
  return payload;
}

const ask = (subject, type, target, details) => ({
  subject_token: subject,
  subject_token_type: type,
  resource: route(target).audience,
  authorization_details: JSON.stringify(details),
});

// exchange is oauth4webapi's, with the one retry that a DPoP nonce asks for.
async function exchange(agent, parameters, options = {}) {
  const send = async () =>
    oauth.processGenericTokenEndpointResponse(
      as,
      agent.client,
      await oauth.genericTokenEndpointRequest(as, agent.client, oauth.TlsClientAuth(), grant, parameters, {
        ...agent.options,
        ...options,
      }),
    );
  const answer = await send().catch((e) => {
    if (!options.DPoP || !oauth.isDPoPNonceError(e)) throw e;
    done.nonces++;
    return send();
  });
  return granted(agent, parameters, answer);
}

// granted checks an answer against what was asked for.
async function granted(agent, parameters, answer) {
  assert.equal(answer.issued_token_type, accessToken);
  assert.ok(answer.expires_in > 0);
  assert.equal(answer.refresh_token, undefined);
  assert.deepEqual(answer.authorization_details, JSON.parse(parameters.authorization_details));
  const claims = await verify(answer.access_token, parameters.resource);
  assert.equal(claims.client_id, agent.uri);
  assert.equal(claims.act.sub, agent.uri);
  assert.deepEqual(claims.authorization_details, answer.authorization_details);
  assert.equal(claims.scope, answer.scope);
  done.issued.push(claims.jti);
  return { raw: answer.access_token, type: answer.token_type, claims };
}

// second checks the hop below the root, with all its receipts.
async function second(root, leaf) {
  const [a, b] = [root.claims, leaf.claims];
  assert.equal(a.may_act.sub, orchestrator.uri);
  assert.equal(b.may_act.sub, research.uri);
  assert.deepEqual(b.act.act, a.act, "the actors so far");
  assert.deepEqual([b.sub, b.txn, b.del_depth, b.anc], [a.sub, a.txn, 1, [a.jti]]);
  assert.ok(b.exp <= a.exp);
  assert.equal(b.par_hash, H(root.raw));

  // The whole chain, as the agent that the leaf is for may fetch it.
  const url = `${as.issuer}/chains/${b.jti}`;
  const answer = await research.fetch(url);
  assert.equal(answer.status, 200);
  const { receipts } = await answer.json();
  assert.equal(receipts.length, 2);
  const [first, last] = [await verifyReceipt(receipts[0]), await verifyReceipt(receipts[1])];
  assert.deepEqual([first.tok_hash, last.tok_hash], [H(root.raw), H(leaf.raw)]);
  assert.deepEqual([last.par_hash, last.rcpt_hash, b.rcpt_hash], [first.tok_hash, H(receipts[0]), H(receipts[0])]);
  assert.equal(first.login.iss, deployment.oidc_issuer);
  assert.equal(first.login.hash, H(idToken));
  assert.deepEqual([first.del.cnf, last.del.cnf], [a.cnf, b.cnf]);
  if (b.receipts) assert.deepEqual(b.receipts, receipts.slice(0, 1));
  const stranger = await app.fetch(url);
  assert.equal(stranger.status, 404, "the chain is not for who asks");
  await stranger.body.cancel();
  // A receipt is no token.
  await assert.rejects(verify(receipts[1], b.aud), { code: "ERR_JWT_CLAIM_VALIDATION_FAILED", claim: "typ" });
}

const idToken = await login("app", "alice@example.com");

// Two hops bound by certificate: the application's by oauth4webapi, the
// orchestrator's by openid-client.
const forRoot = ask(idToken, idTokenType, "orchestrator", [detail("orchestrator"), detail("research")]);
const root = await exchange(app, forRoot);
assert.deepEqual([root.type, root.claims.cnf], ["bearer", { "x5t#S256": app.thumbprint }]);
const narrowed = [{ ...detail("research"), from: 1 }];
const forLeaf = ask(root.raw, accessToken, "research", narrowed);
const leaf = await granted(orchestrator, forLeaf, await openid.genericGrantRequest(relyingParty, grant, forLeaf));
assert.deepEqual([leaf.type, leaf.claims.cnf], ["bearer", { "x5t#S256": orchestrator.thumbprint }]);
await second(root, leaf);

await refused("widened details", "invalid_authorization_details", 400,
  exchange(orchestrator, { ...forLeaf, authorization_details: JSON.stringify([...narrowed, { ...detail("crm"), from: 1 }]) }));
await refused("wider scope", "invalid_scope", 400, exchange(orchestrator, { ...forLeaf, scope: "a2a:send mcp:call" }));
await refused("another agent's certificate", "invalid_request", 400, exchange(research, forLeaf));
await refused("another agent's name", "invalid_client", 401, exchange({ ...research, client: orchestrator.client }, forLeaf));
await refused("no certificate", "invalid_client", 401,
  exchange({ ...orchestrator, options: { [oauth.customFetch]: anonymous } }, forLeaf));
await refused("another application's login", "invalid_request", 400,
  exchange(app, { ...forRoot, subject_token: await login("desk", "alice@example.com") }));
await refused("no target", "invalid_target", 400, exchange(orchestrator, { ...forLeaf, resource: "https://nobody.test" }));

// Two hops bound by DPoP, each to a key of its own; and oauth4webapi as the
// resource server.
const appKey = await oauth.generateKeyPair("ES256");
const appProofs = { DPoP: oauth.DPoP(app.client, appKey) };
const forRootD = ask(idToken, idTokenType, "orchestrator-dpop", [detail("orchestrator-dpop"), detail("research-dpop")]);
const rootD = await exchange(app, forRootD, appProofs);
assert.deepEqual([rootD.type, rootD.claims.cnf], ["dpop", { jkt: await dpop.calculateThumbprint(appKey.publicKey) }]);
const hopKey = await dpop.generateKeyPair("ES256");
const forLeafD = ask(rootD.raw, accessToken, "research-dpop", [{ ...detail("research-dpop"), from: 1 }]);
const leafD = await granted(orchestrator, forLeafD,
  await openid.genericGrantRequest(relyingParty, grant, forLeafD, { DPoP: openid.getDPoPHandle(relyingParty, hopKey) }));
assert.deepEqual([leafD.type, leafD.claims.cnf], ["dpop", { jkt: await dpop.calculateThumbprint(hopKey.publicKey) }]);
await second(rootD, leafD);

async function presented(token, key, audience, url = audience) {
  const proof = await dpop.generateProof(key, url, "POST", undefined, token);
  const request = new Request(audience, { method: "POST", headers: { authorization: `DPoP ${token}`, dpop: proof } });
  return oauth.validateJwtAccessToken(as, request, audience, { requireDPoP: true, [oauth.customFetch]: anonymous });
}
for (const [{ raw, claims }, key] of [[rootD, appKey], [leafD, hopKey]]) {
  assert.deepEqual(await presented(raw, key, claims.aud), claims);
  done.validated++;
}
await assert.rejects(presented(leafD.raw, appKey, leafD.claims.aud), /confirmation mismatch/);
await assert.rejects(presented(leafD.raw, hopKey, leafD.claims.aud, rootD.claims.aud), /htu mismatch/);
await assert.rejects(presented(leafD.raw, hopKey, rootD.claims.aud), /"aud"/);
// It knows no certificates: it refuses such a token, and does not take it for unbound.
await assert.rejects(
  oauth.validateJwtAccessToken(as, new Request(leaf.claims.aud, { headers: { authorization: `Bearer ${leaf.raw}` } }),
    leaf.claims.aud, { [oauth.customFetch]: anonymous }),
  /unsupported JWT Confirmation method/,
);

await refused("no proof", "invalid_request", 400, exchange(orchestrator, forLeafD));

// One proof, sent by hand: good once.
let nonce;
async function withProof(proof, parameters) {
  const response = await orchestrator.fetch(as.token_endpoint, {
    method: "POST",
    headers: { DPoP: proof },
    body: new URLSearchParams({ grant_type: grant, ...parameters }),
  });
  nonce = response.headers.get("dpop-nonce") ?? nonce;
  return oauth.processGenericTokenEndpointResponse(as, orchestrator.client, response);
}
const prove = (url = as.token_endpoint, method = "POST") => dpop.generateProof(hopKey, url, method, nonce);
await prove().then((p) => withProof(p, forLeafD)).then((a) => granted(orchestrator, forLeafD, a), (e) => {
  if (e.error !== "use_dpop_nonce") throw e;
  done.nonces++;
});
const once = await prove();
await granted(orchestrator, forLeafD, await withProof(once, forLeafD));
await refused("a proof replayed", "invalid_dpop_proof", 400, withProof(once, forLeafD));
await refused("a proof of another URL", "invalid_dpop_proof", 400, withProof(await prove(as.revocation_endpoint), forLeafD));
await refused("a proof of another method", "invalid_dpop_proof", 400, withProof(await prove(as.token_endpoint, "GET"), forLeafD));
await refused("a proof replayed beside a certificate", "invalid_dpop_proof", 400, withProof(once, forLeaf));

// Introspection: by who serves the audience, and by nobody else.
async function introspect(agent, token) {
  const answer = await oauth.processIntrospectionResponse(as, agent.client,
    await oauth.introspectionRequest(as, agent.client, oauth.TlsClientAuth(), token, agent.options));
  done.introspected++;
  return answer;
}
const { receipts: _, ...told } = leaf.claims;
assert.deepEqual(await introspect(research, leaf.raw), { active: true, token_type: "Bearer", ...told });
assert.equal((await introspect(research, leafD.raw)).token_type, "DPoP");
assert.deepEqual(await introspect(app, leaf.raw), { active: false });
assert.deepEqual(await introspect(research, "no.such.token"), { active: false });

// Revocation: of one's own token, with everything below it and nothing else.
async function revoke(agent, token) {
  await oauth.processRevocationResponse(
    await oauth.revocationRequest(as, agent.client, oauth.TlsClientAuth(), token, agent.options));
  done.revoked.push(jose.decodeJwt(token).jti);
}
await refused("revoking another's token", "invalid_request", 400, revoke(orchestrator, root.raw));
assert.equal((await introspect(research, leaf.raw)).active, true);
await revoke(app, root.raw);
assert.deepEqual(await introspect(research, leaf.raw), { active: false }, "what is below dies too");
assert.deepEqual(await introspect(orchestrator, root.raw), { active: false });
await refused("exchanging a revoked token", "invalid_request", 400, exchange(orchestrator, forLeaf));

assert.equal((await openid.tokenIntrospection(relyingParty, rootD.raw)).active, true);
await openid.tokenRevocation(relyingParty, leafD.raw);
done.revoked.push(leafD.claims.jti);
assert.deepEqual(await introspect(research, leafD.raw), { active: false });
assert.equal((await introspect(orchestrator, rootD.raw)).active, true, "what is above lives on");

// Each DPoP client was asked for a nonce once; openid-client sees to it itself.
assert.equal(done.nonces, 2);
assert.equal(done.unissued, Object.keys(done.refused).length - 1 + 3, "the refusals but one, and three demands of a nonce");

await Promise.all([app, orchestrator, research].map((a) => a.dispatcher.close()).concat(anonymousDispatcher.close()));
console.log(JSON.stringify(done));
