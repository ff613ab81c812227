// Requests to the server. It answers JSON, or an error that names the cause and the remedy.

/** Return the JSON at `path`. An error has the message of the server, or `unreachable`. */
export async function get(path, signal) {
  return read(await ask(path, signal));
}

/** Yield the JSON at `path`, whose rows arrive in lines. If `isEarly`, yield it with the rows of the first line before. */
export async function getRows(path, isEarly) {
  const answer = await ask(path);
  return answer.ok ? growing(answer.body.pipeThrough(new TextDecoderStream()).getReader(), isEarly) : read(answer);
}

async function* growing(reader, isEarly) {
  let text = "";
  for (let part; !(part = await reader.read().catch(unreachable)).done; ) {
    text += part.value;
    if (!isEarly || !part.value.includes("\n")) continue;
    isEarly = false;
    yield JSON.parse(`${text.slice(0, text.indexOf("\n"))}]}`);
  }
  if (!text.endsWith("]}")) unreachable();
  yield JSON.parse(text);
}

async function ask(path, signal) {
  try {
    return await fetch(path, { signal, headers: { accept: "application/json" } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    unreachable();
  }
}

function unreachable() {
  throw Object.assign(new Error("The viewer does not answer. Is it still running?"), { unreachable: true });
}

/** Import a file. Return the numbers of its spans, traces and log records, and the id of the first trace. */
export async function send(file) {
  let answer;
  try {
    answer = await fetch("/api/import", { method: "POST", headers: { "content-type": "application/octet-stream" }, body: file });
  } catch {
    throw new Error("The viewer does not answer, or the browser cannot read the file.");
  }
  return read(answer);
}

async function read(answer) {
  if (answer.ok) return answer.json();
  const body = await answer.json().catch(() => ({}));
  throw Object.assign(new Error(body.error || answer.statusText), { status: answer.status, position: body.position });
}
