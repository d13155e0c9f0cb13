// One session of a TypeScript SDK client with the server, as a program: calls in, answers out.
//
//     node session.mjs v1|v2-legacy|v2-modern stdio COMMAND ARGUMENT...
//     node session.mjs v1|v2-legacy|v2-modern http URL
//
// Reads lines of JSON from its standard input: {"tool": ..., "arguments": ..., "elicit": ...}, and
// writes one line for each call: {"result": ..., "progress": [...], "asked": [...]} or {"error": ...}.
// The first line it writes is what the server says of itself, with the names of its tools.

import { createInterface } from "node:readline";
import * as v2 from "@modelcontextprotocol/client";
import { StdioClientTransport as V2Stdio } from "@modelcontextprotocol/client/stdio";
import { Client as V1Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport as V1Stdio } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport as V1Http } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { ElicitRequestSchema } from "@modelcontextprotocol/sdk/types.js";

const [kind, transport, ...where] = process.argv.slice(2);
const first = kind === "v1";
const info = { name: "interop", version: "1" };
const capabilities = { elicitation: { form: {} } };
const asked = [];
let answer = { action: "decline" };

const client = first
  ? new V1Client(info, { capabilities })
  : new v2.Client(info, {
      capabilities,
      versionNegotiation: { mode: kind === "v2-modern" ? { pin: "2026-07-28" } : "legacy" },
    });
client.setRequestHandler(first ? ElicitRequestSchema : "elicitation/create", async (request) => {
  asked.push(request.params.message);
  return answer;
});

const Stdio = first ? V1Stdio : V2Stdio;
const Http = first ? V1Http : v2.StreamableHTTPClientTransport;
await client.connect(
  transport === "stdio"
    ? new Stdio({ command: where[0], args: where.slice(1), env: process.env })
    : new Http(new URL(where[0])),
);

const say = (message) => console.log(JSON.stringify(message));
const { tools } = await client.listTools();
say({ server: client.getServerVersion(), tools: tools.map((tool) => tool.name) });

for await (const line of createInterface({ input: process.stdin })) {
  const call = JSON.parse(line);
  const progress = [];
  const options = { onprogress: (report) => progress.push(report.progress), timeout: 60_000 };
  const request = { name: call.tool, arguments: call.arguments };
  asked.length = 0;
  answer = call.elicit ?? { action: "decline" };
  try {
    const result = first
      ? await client.callTool(request, undefined, options)
      : await client.callTool(request, options);
    say({ result, progress, asked: [...asked] });
  } catch (error) {
    say({ error: String(error) });
  }
}
await client.close();
