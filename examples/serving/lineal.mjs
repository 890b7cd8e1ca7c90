// For agents in JavaScript that serve calls and go on with what they were
// handed, through `lineal sidecar`: the delegation of the call that is being
// served goes with every call that its handler makes, and with no other.
//
//   const lineal = new Lineal({ url: "http://127.0.0.1:8402", secret });
//   http.createServer(lineal.receive(handler));
//   new OpenAI({ baseURL: url + "/openai/v1", apiKey: secret, fetch: lineal.fetch });
//
// Whoever may reach the server can hand over a delegation; the sidecar verifies
// it. So the server must take calls from the gateway alone, over mutual TLS.
import { AsyncLocalStorage } from "node:async_hooks";

export class Lineal {
  #serving = new AsyncLocalStorage();
  #origin;
  #secret;

  constructor({ url, secret }) {
    this.#origin = new URL(url).origin;
    this.#secret = secret;
    this.fetch = this.fetch.bind(this);
  }

  /** Wraps a handler of node:http. The handler no longer sees the delegation. */
  receive(handler) {
    return (request, response) => {
      const { "lineal-delegation": delegation, "lineal-request-id": parent } = request.headers;
      delete request.headers["lineal-delegation"];
      return this.#serving.run({ delegation, parent }, () => handler(request, response));
    };
  }

  /** A fetch that says for whom the call is, to the sidecar and to nobody else. */
  fetch(input, init = {}) {
    const request = new Request(input, init);
    const headers = new Headers(request.headers);
    for (const name of ["lineal-delegation", "lineal-parent"]) headers.delete(name);
    if (new URL(request.url).origin === this.#origin) {
      headers.set("Authorization", `Bearer ${this.#secret}`);
      const { delegation, parent } = this.#serving.getStore() ?? {};
      if (delegation) headers.set("Lineal-Delegation", delegation);
      if (delegation && parent) headers.set("Lineal-Parent", parent);
    }
    return fetch(new Request(request, { headers, redirect: "manual" }));
  }
}
