// Server-sent events, read with fetch: an EventSource cannot send the token.
//
// Owns the form of the stream (WHATWG HTML, section 9.2), as far as the collector uses it. Reconnecting is for whoever asks.

import { call } from "./api.ts";

export async function follow(path: string, signal: AbortSignal, opened: () => void, handle: (name: string, data: unknown) => void): Promise<void> {
  const response = await call(path, { signal });
  opened();
  if (!response.body) return;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  let name = "";
  let data = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    const lines = text.split("\n");
    text = lines.pop() ?? "";
    for (const line of lines) {
      if (line === "") {
        if (data) handle(name, JSON.parse(data));
        name = data = "";
      } else if (line.startsWith("event: ")) name = line.slice(7);
      else if (line.startsWith("data: ")) data += line.slice(6);
    }
  }
}
