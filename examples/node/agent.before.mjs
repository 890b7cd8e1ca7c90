// An agent that asks a database over MCP, and a model by two APIs: agent.before.mjs
// without Lineal, agent.mjs with it.
import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

const mcp = new Client({ name: "agent", version: "1.0.0" });
await mcp.connect(new StreamableHTTPClientTransport(new URL(process.env.DB_URL)));
const rows = await mcp.callTool({
  name: "query",
  arguments: { table: "customers", columns: ["id", "name"], where: { region: "EU" }, limit: 3 },
});
await mcp.close();
const facts = JSON.stringify(rows.structuredContent);

const question = { model: "lineal-demo-stand-in", messages: [{ role: "user", content: `Which customers are these? ${facts}` }] };
const answer = await new OpenAI().chat.completions.create(question);
console.log("OpenAI's API:", answer.choices[0].message.content);

const message = await new Anthropic().messages.create({ ...question, max_tokens: 500 });
console.log("Anthropic's API:", message.content[0].text);
