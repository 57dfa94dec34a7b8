// All calls of the service's REST API, in one place. An error is thrown with the service's own words.
export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

function wordsOf(status, data) {
  if (data && typeof data.error === "string") return data.error;
  if (data && data.error && typeof data.error === "object") {
    const { expected, got, do: then } = data.error;
    return `Expected ${expected}, got ${got}: ${then}.`;
  }
  return `The service replied with ${status}.`;
}

export async function call(method, path, body, signal) {
  const headers = { "X-Blemish": "1" };
  const isJson = body !== undefined && !(body instanceof FormData || body instanceof Blob);
  if (isJson) headers["Content-Type"] = "application/json";
  let reply;
  try {
    reply = await fetch(path, {
      method, headers, signal, credentials: "same-origin",
      body: isJson ? JSON.stringify(body) : body,
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The service does not reply. Is it still running?");
  }
  if (reply.status === 401 && location.pathname !== "/login") {
    location.assign(`/login?next=${encodeURIComponent(location.pathname + location.search)}`);
  }
  const hasData = reply.status !== 204 && (reply.headers.get("Content-Type") || "").includes("json");
  const data = hasData ? await reply.json() : null;
  if (!reply.ok) throw new ApiError(reply.status, wordsOf(reply.status, data));
  return data;
}

const at = (product) => `/api/products/${encodeURIComponent(product)}`;
const query = (values) =>
  new URLSearchParams(Object.entries(values).filter(([, value]) => value !== undefined && value !== "")).toString();

function form(files) {
  const data = new FormData();
  for (const file of files) data.append("files", file, file.name);
  return data;
}

export const api = {
  createProduct: (name, settings = {}) => call("POST", "/api/products", { name, ...settings }),
  changeProduct: (product, changes) => call("PATCH", at(product), changes),
  addGood: (product, files) => call("POST", `${at(product)}/good`, form(files)),
  removeGood: (product, sha256) => call("DELETE", `${at(product)}/good/${sha256}`),
  learn: (product) => call("POST", `${at(product)}/learn`),
  job: (job) => call("GET", `/api/jobs/${job}`),
  cancelJob: (job) => call("DELETE", `/api/jobs/${job}`),
  activate: (product, version) => call("POST", `${at(product)}/activate`, { version }),
  limits: (product) => call("GET", `/api/thresholds?${query({ product })}`),
  previewLimits: (move, signal) => call("POST", "/api/thresholds/preview", move, signal),
  setLimits: (move) => call("PUT", "/api/thresholds", move),
  tryOut: (product, file) => call("POST", `/api/inspect/try?${query({ product, name: file.name })}`, file),
  parts: (values) => call("GET", `/api/parts?${query(values)}`),
  part: (part) => call("GET", `/api/parts/${part}`),
  review: (part, decision, defect) => call("POST", "/api/reviews", { part, decision, defect }),
  undoReview: () => call("DELETE", "/api/reviews/last"),
  reviews: (product) => call("GET", `/api/reviews/state?${query({ product })}`),
  previewReviews: (product) => call("POST", "/api/reviews/preview", { product }),
  applyReviews: (product, kind) => call("POST", "/api/reviews/apply", { product, kind }),
  trigger: (product) => call("POST", `/api/sources/trigger?${query({ product })}`),
  monitor: (product) => call("GET", `/api/monitor?${query({ product })}`),
  restartMonitor: (product, accept) => call("POST", "/api/monitor/restart", { product, accept }),
  defects: (product) => call("GET", `/api/defects?${query({ product })}`),
  addUser: (name, role) => call("POST", "/api/users", { name, role }),
  removeUser: (name) => call("DELETE", `/api/users/${encodeURIComponent(name)}`),
  addWebhook: (hook) => call("POST", "/api/webhooks", hook),
  removeWebhook: (hook) => call("DELETE", `/api/webhooks/${hook}`),
  login: (token) => call("POST", "/api/session", { token }),
  logout: () => call("DELETE", "/api/session"),
};
