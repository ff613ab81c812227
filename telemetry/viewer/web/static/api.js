// Requests to the server. It answers JSON, or an error that names the cause and the remedy.

/** Return the JSON at `path`. An error has the message of the server, or `unreachable`. */
export async function get(path, signal) {
  let answer;
  try {
    answer = await fetch(path, { signal, headers: { accept: "application/json" } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw Object.assign(new Error("The viewer does not answer. Is it still running?"), { unreachable: true });
  }
  return read(answer);
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
