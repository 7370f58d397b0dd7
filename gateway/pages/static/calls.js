// How pages talk to the gateway: parts of pages as HTML that the server has escaped, changes as JSON with the token of
// the session. Every failure becomes an object that says what happened and what to do.

export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail);
    this.status = status;
    this.problem = problem;
  }
}

const UNREACHABLE = {
  title: "Not reached",
  detail: "The gateway cannot be reached.",
  remedy: "Check the connection and send it again; it is taken once, however often it is sent.",
};

/** A part of a page, parsed. An error page comes back like any other; look at `status`. */
export async function part(address) {
  const reply = await fetch(address, { headers: { Accept: "text/html" }, cache: "no-store" });
  if (reply.status === 401) signedOut();
  const parsed = new DOMParser().parseFromString(await reply.text(), "text/html");
  return { status: reply.status, nodes: [...parsed.body.childNodes] };
}

let leaving = false; // this page is signing out itself; to go elsewhere now would break that off
document.querySelector("form.who")?.addEventListener("submit", () => (leaving = true));

/** The session is over: the login says so and leads back here. Whoever is writing stays, and is told. */
export function signedOut() {
  if (leaving) return;
  if (document.querySelector(".confirm:not([hidden])")) {
    const ended = document.getElementById("ended"), live = document.getElementById("live");
    ended.hidden = false;
    live?.classList.add("off");
    live?.replaceChildren("signed out");
    return;
  }
  location.replace(`/inbox/login?ended=1&next=${encodeURIComponent(location.pathname + location.search)}`);
}

/** Somebody has signed in again in another tab. If it is the same person, this page goes on with the new session. */
async function resume() {
  const reply = await fetch("/requests", { headers: { Accept: "text/html" }, cache: "no-store" });
  if (!reply.ok) return false;
  const fresh = new DOMParser().parseFromString(await reply.text(), "text/html");
  const name = (page) => page.querySelector(".who .name")?.title;
  if (!fresh.body.dataset.token || name(fresh) !== name(document)) return false;
  document.body.dataset.token = fresh.body.dataset.token;
  document.getElementById("ended").hidden = true;
  document.dispatchEvent(new Event("resumed"));
  return true;
}

/** Change something. Throws `Refused`. */
export async function post(address, body, key) {
  try {
    return await postOnce(address, body, key);
  } catch (refused) {
    if (!refused.problem?.type?.endsWith(":stale-page") || !(await resume().catch(() => false))) throw refused;
    return postOnce(address, body, key);
  }
}

async function postOnce(address, body, key) {
  let reply;
  try {
    reply = await fetch(address, {
      method: "POST",
      headers: {
        "Content-Type": "application/json",
        Accept: "application/json",
        "X-Holdfast-CSRF": document.body.dataset.token,
        ...(key ? { "Idempotency-Key": key } : {}),
      },
      body: JSON.stringify(body),
    });
  } catch {
    throw new Refused(0, UNREACHABLE);
  }
  const said = await reply.json().catch(() => ({ detail: `The gateway answered ${reply.status}.`, remedy: "Try again." }));
  if (!reply.ok) throw new Refused(reply.status, said);
  return said;
}

/** A name under which a change is made at most once. */
export function newKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** A short message that goes away by itself. `link` is `[text, address]`. */
export function toast(text, link) {
  const made = document.createElement("p");
  made.className = "toast";
  made.textContent = text + (link ? " " : "");
  if (link) {
    const anchor = document.createElement("a");
    [anchor.textContent, anchor.href] = link;
    made.append(anchor);
  }
  document.getElementById("toasts").append(made);
  setTimeout(() => made.remove(), 6000);
}

/** Put a part in the place of what an element holds. */
export function replace(element, { nodes }) {
  element.replaceChildren(...nodes);
}

/**
 * Listen to a stream of events for good. A browser gives up on a stream that was refused once; this does not, unless the
 * session is over, and then until it is resumed.
 */
export function listen(address, hear) {
  let closed = false, over = false, source;
  const open = () => {
    over = false;
    source = new EventSource(address);
    hear(source);
    source.addEventListener("signed-out", () => {
      over = true;
      source.close();
      signedOut();
    });
    source.addEventListener("error", () => {
      if (source.readyState === EventSource.CLOSED && !closed && !over) setTimeout(() => closed || over || open(), 3000);
    });
  };
  open();
  document.addEventListener("resumed", () => closed || !over || open());
  return () => {
    closed = true;
    source.close();
  };
}
