// The official TypeScript SDKs of model providers through the gateway.
//   node clients.mjs < the JSON object that the rig printed
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import OpenAI from "openai";
import Anthropic from "@anthropic-ai/sdk";

const rig = JSON.parse(readFileSync(0, "utf8"));
let passed = 0;
const check = (name, ok, ...got) => {
  assert.ok(ok, `${name}: ${got.map((g) => g?.stack ?? JSON.stringify(g)).join(" ")}`);
  passed++;
};

async function refused(name, call, status, code) {
  let e;
  try {
    await call();
  } catch (thrown) {
    e = thrown;
  }
  const said = e?.error?.error ?? e?.error;
  check(name, e?.status === status && said?.code === code && /Request [0-9a-f-]{36}\./.test(said.message), e);
  const challenge = e.headers.get("www-authenticate") ?? "";
  check(`${name}, challenge`, (status === 401) === (challenge.includes("resource_metadata=") && challenge.includes('error="invalid_token"')), challenge);
}

{
  const at = (route, base = "/v1") => new OpenAI({ baseURL: `${rig.front}/${route}${base}`, apiKey: rig.tokens[route] });
  const c = at("openai");
  const chat = { model: "small", messages: [{ role: "user", content: "Hello!" }] };
  for (const base of ["/v1", "", "/v1/v1"]) {
    const answer = await at("openai", base).chat.completions.create(chat);
    check(`openai chat at ${base}`, answer.choices[0].message.content === "Hello!", answer);
  }
  let said = "";
  for await (const chunk of await c.chat.completions.create({ ...chat, stream: true })) said += chunk.choices[0]?.delta?.content ?? "";
  check("openai chat stream", said === "Hello!", said);
  const answer = await c.responses.create({ model: "small", input: "Hello!" });
  check("openai response", answer.output_text === "Hello!", answer);
  let text;
  for await (const event of await c.responses.create({ model: "small", input: "Hello!", previous_response_id: answer.id, stream: true })) {
    if (event.type === "response.completed") text = event.response.output[0].content[0].text;
  }
  check("openai response stream, going on", text === "Hello!", text);
  await refused("openai foreign response", () => c.responses.create({ model: "small", input: "x", previous_response_id: "resp_of_somebody_else" }), 404, "handle_unknown");
  const read = await c.responses.retrieve(answer.id);
  check("openai stored response", read.output_text === "Hello!", read);
  const input = await c.responses.inputItems.list(answer.id, { limit: 2 });
  check("openai its input", input.data.length === 1, input);
  check("openai cancel", (await c.responses.cancel(answer.id)).id === answer.id);
  await c.responses.delete(answer.id);
  await refused("openai somebody's response", () => c.responses.retrieve("resp_of_somebody_else"), 404, "handle_unknown");
  const conversation = await c.conversations.create({ items: [{ type: "message", role: "user", content: "Hello!" }] });
  check("openai conversation", (await c.conversations.retrieve(conversation.id)).id === conversation.id, conversation);
  const items = await c.conversations.items.list(conversation.id);
  check("openai its items", items.data.length === 1, items);
  const inside = await c.responses.create({ model: "small", input: "Hello!", conversation: conversation.id });
  check("openai response in it", inside.output_text === "Hello!", inside);
  await c.conversations.delete(conversation.id);
  await refused("openai somebody's conversation", () => c.conversations.retrieve("conv_of_somebody_else"), 404, "handle_unknown");
  const embedded = await c.embeddings.create({ model: "small", input: "x", encoding_format: "float" });
  check("openai embeddings", embedded.data.length === 1, embedded);
  const models = await c.models.list();
  check("openai models", models.data.length === 1 && models.data[0].id === "small", models.data);
  await refused("openai refused by policy", () => c.chat.completions.create({ ...chat, model: "forbidden" }), 403, "policy_denied");
  await refused("openai stream refused by policy", () => c.chat.completions.create({ ...chat, model: "forbidden", stream: true }), 403, "policy_denied");
  await refused("openai expired token", () => at("openai-brief").chat.completions.create(chat), 401, "token_expired");
  await refused("openai upstream down", () => at("openai-down").chat.completions.create(chat), 502, "upstream_unreachable");
  check("openai lives on", (await c.chat.completions.create(chat)).choices[0].message.content === "Hello!");
}
{
  const at = (route, base = "") => new Anthropic({ baseURL: `${rig.front}/${route}${base}`, apiKey: rig.tokens[route] });
  const c = at("anthropic");
  const ask = { model: "small", max_tokens: 64, messages: [{ role: "user", content: "Hello!" }] };
  for (const base of ["", "/v1"]) {
    const answer = await at("anthropic", base).messages.create(ask);
    check(`anthropic message at ${base}`, answer.content[0].text === "Hello!", answer);
  }
  const whole = await c.messages.stream(ask).finalMessage();
  check("anthropic stream", whole.content[0].text === "Hello!" && whole.usage.output_tokens === 15, whole);
  check("anthropic count", (await c.messages.countTokens({ model: "small", messages: ask.messages })).input_tokens === 14);
  const models = await c.models.list();
  check("anthropic models", models.data.length === 1 && models.data[0].id === "small", models.data);
  await refused("anthropic refused by policy", () => c.messages.create({ ...ask, model: "forbidden" }), 403, "policy_denied");
  await refused("anthropic expired token", () => at("anthropic-brief").messages.create(ask), 401, "token_expired");
  await refused("anthropic upstream down", () => at("anthropic-down").messages.create(ask), 502, "upstream_unreachable");
  check("anthropic lives on", (await c.messages.create(ask)).content[0].text === "Hello!");
}
console.log(JSON.stringify({ node: passed }));
