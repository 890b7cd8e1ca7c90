// An agent that serves: it looks the customer up that it is asked about, in the
// name of whom the call was for. Run by .ci/serving.
import http from "node:http";
import { readFileSync } from "node:fs";
import { Client } from "../node/node_modules/@modelcontextprotocol/sdk/dist/esm/client/index.js";
import { StreamableHTTPClientTransport } from "../node/node_modules/@modelcontextprotocol/sdk/dist/esm/client/streamableHttp.js";
import { Lineal } from "./lineal.mjs";

const [url, secretFile] = process.argv.slice(2);
const lineal = new Lineal({ url, secret: readFileSync(secretFile, "utf8").trim() });

async function lookUp(customer) {
  const mcp = new Client({ name: "serving", version: "1.0.0" });
  await mcp.connect(new StreamableHTTPClientTransport(new URL(url + "/mcp/crm"), { fetch: lineal.fetch }));
  try {
    return await mcp.callTool({ name: "lookup", arguments: { customer } });
  } finally {
    await mcp.close();
  }
}

const server = http.createServer(lineal.receive(async (request, response) => {
  try {
    const result = await lookUp(new URL(request.url, "http://x").searchParams.get("customer"));
    response.end(JSON.stringify({ result, saw: request.headers["lineal-delegation"] ?? null }));
  } catch (e) {
    response.writeHead(502).end(JSON.stringify({ error: String(e) }));
  }
}));
server.listen(0, "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}`));
