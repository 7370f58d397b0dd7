// The inbox: keeps the list current, moves between questions, and sends decisions. What a decision led to is shown only
// once the gateway has said so; a refused one leaves everything as it was, with the reason beside it.

import { listen, newKey, part, post, replace, toast } from "./calls.js";
import { showChanges } from "./diff.js";
import { refreshTimes } from "./time.js";

const list = document.getElementById("list"), pane = document.getElementById("question");
const live = document.getElementById("live"), help = document.getElementById("help");
const settled = new Set(); // marks of questions that were decided here; the index lags behind for a moment
const VERBS = { a: "approve", e: "edit", r: "reject", x: "escalate" };
const SURE = { approve: "Approve", edit: "Save and approve", reject: "Reject", escalate: "Escalate" };
const STYLE = { approve: "go", edit: "go", reject: "stop", escalate: "primary" };
const OVER = new Set(["not_open", "already_decided", "too_late"]); // refused for good
const DONE = { approve: "Approved.", edit: "Edited and approved.", reject: "Rejected.", escalate: "Escalated." };

let deciding = null; // { verb, key } while a decision is being written

const article = () => pane.querySelector("article");
const form = () => pane.querySelector("form.decide");
const rows = () => [...list.querySelectorAll(".row:not(.gone)")];
const rowOf = (id) => list.querySelector(`.row[data-id="${CSS.escape(id)}"]`);
const isPhone = () => matchMedia("(max-width: 52rem)").matches;

// The list

async function refreshList() {
  const page = list.querySelector(".list")?.dataset.page ?? "1";
  let fresh;
  try {
    fresh = await part(`/inbox?part=list&page=${page}`);
  } catch {
    return offline("The gateway cannot be reached; the list is as it was.");
  }
  if (fresh.status === 401) return;
  if (fresh.status === 503) {
    const why = fresh.nodes.find((node) => node.querySelector)?.querySelector("h2")?.textContent ?? "Nothing answers";
    if (!list.querySelector(".row")) replace(list, fresh);
    return offline(`${why}; the list is as it was.`);
  }
  const focused = document.activeElement?.closest?.(".row")?.dataset.id;
  const top = list.scrollTop;
  replace(list, fresh);
  list.scrollTop = top;
  for (const row of list.querySelectorAll(".row")) if (settled.has(row.dataset.mark)) row.classList.add("gone");
  mark(article()?.dataset.id ?? "");
  if (focused) rowOf(focused)?.focus();
  const count = list.querySelector(".list")?.dataset.count ?? "0";
  document.title = `${count === "0" ? "" : `(${count}) `}Inbox · Holdfast`;
  live.classList.remove("off");
  live.textContent = "live";
  refreshTimes(list);
  await followQuestion();
}

function offline(why) {
  live.classList.add("off");
  live.textContent = "paused";
  live.title = why;
  clearTimeout(offline.again);
  offline.again = setTimeout(refreshList, 3000);
}

/** The question beside the list changed or is gone: show that, but never throw away what somebody is writing. */
async function followQuestion() {
  const shown = article();
  if (!shown) return rows().length && !isPhone() ? open(rows()[0].dataset.id, { push: false }) : undefined;
  if (shown.classList.contains("settled") || settled.has(shown.dataset.mark)) return;
  const row = rowOf(shown.dataset.id);
  if (row?.dataset.mark === shown.dataset.mark) return;
  if (!row && Number(list.querySelector(".list")?.dataset.count) > rows().length) return; // on another page of the list
  if (!deciding) return open(shown.dataset.id, { push: false, focus: false });
  problem({ detail: "This question has changed or was decided while you were writing.", remedy: "Your text is still here; go back to see how it stands now." });
}

listen("/inbox/events", (events) => {
  events.addEventListener("inbox", (event) => {
    const { version } = JSON.parse(event.data);
    if (!version) offline("The engine does not answer; the list is as it was.");
    else if (version !== list.querySelector(".list")?.dataset.version || live.classList.contains("off")) refreshList();
  });
  events.addEventListener("error", () => offline("The connection is interrupted; trying again."));
});

// The question

function mark(id) {
  for (const row of list.querySelectorAll(".row[aria-current]")) row.removeAttribute("aria-current");
  const row = rowOf(id);
  row?.setAttribute("aria-current", "true");
  row?.scrollIntoView({ block: "nearest" });
}

async function open(id, { push = true, focus = true } = {}) {
  if (leaving()) return;
  const page = list.querySelector(".list")?.dataset.page ?? "1";
  const address = `/inbox/${encodeURIComponent(id)}${page === "1" ? "" : `?page=${page}`}`;
  mark(id);
  let fresh;
  try {
    fresh = await part(`/inbox/${encodeURIComponent(id)}?part=question`);
  } catch {
    return toast("The gateway cannot be reached; try again.");
  }
  if (fresh.status === 401) return;
  if (!focus && deciding) return followQuestion(); // somebody began to write while it was fetched
  replace(pane, fresh);
  deciding = null;
  document.body.classList.remove("editing-now");
  pane.scrollTop = 0;
  if (push) {
    history.pushState({ id }, "", address);
    document.body.classList.add("detail");
    if (isPhone()) scrollTo(0, 0);
  }
  prepare();
  if (focus) pane.querySelector("h1")?.focus({ preventScroll: true });
}

function prepare() {
  refreshTimes(pane);
  for (const diff of pane.querySelectorAll(".diff"))
    showChanges(diff.querySelector(".changes"), diff.dataset.before, diff.dataset.after);
}

/** Whether something written would be lost; asks. */
function leaving() {
  const text = pane.querySelector("#payload");
  return deciding?.verb === "edit" && text.value !== text.defaultValue && !confirm("Discard your changes?");
}

function step(by) {
  const all = rows();
  if (!all.length) return;
  const at = all.findIndex((row) => row.dataset.id === article()?.dataset.id);
  const next = all[at < 0 ? 0 : Math.min(all.length - 1, Math.max(0, at + by))];
  if (next.dataset.id !== article()?.dataset.id) open(next.dataset.id);
}

// Deciding

function begin(verb) {
  const shown = form();
  if (!shown?.querySelector(`[data-verb="${verb}"]:enabled`)) return;
  if (leaving()) return;
  deciding = { verb, key: newKey() };
  shown.querySelector(":scope > .verbs").hidden = true;
  shown.querySelector(".confirm").hidden = false;
  shown.querySelector(".consequence").textContent = shown.dataset[verb];
  problem(null);
  const sure = shown.querySelector(".sure");
  sure.className = `sure ${STYLE[verb]}`;
  sure.replaceChildren(SURE[verb]);
  edit(verb === "edit");
  if (verb === "reject" || verb === "escalate") shown.elements.reason.focus();
  else if (verb !== "edit") sure.focus();
}

function edit(on) {
  const editing = pane.querySelector(".editing");
  document.body.classList.toggle("editing-now", on);
  if (!editing) return;
  editing.hidden = !on;
  pane.querySelector(".reading").hidden = on;
  const text = editing.querySelector("textarea");
  if (on) {
    compareNow();
    text.focus({ preventScroll: true });
    text.setSelectionRange(0, 0);
    pane.querySelector(".content").scrollIntoView({ block: "start" });
  }
}

function compareNow() {
  const text = pane.querySelector("#payload"), changes = pane.querySelector(".editing .changes");
  changes.classList.toggle("mono", text.classList.contains("mono"));
  const changed = showChanges(changes, text.defaultValue, text.value);
  if (deciding?.verb === "edit") form().querySelector(".sure").disabled = !changed || isStale();
}

function back() {
  if (!deciding || leaving()) return;
  const { verb } = deciding, text = pane.querySelector("#payload");
  deciding = null;
  if (text) text.value = text.defaultValue;
  edit(false);
  const shown = form();
  if (isStale()) return open(article().dataset.id, { push: false });
  shown.querySelector(".confirm").hidden = true;
  shown.querySelector(".sure").disabled = false;
  shown.querySelector(":scope > .verbs").hidden = false;
  shown.querySelector(`[data-verb="${verb}"]`).focus();
  if (rowOf(article().dataset.id)?.dataset.mark !== article().dataset.mark) refreshList();
}

function problem(said) {
  const place = form()?.querySelector(".problem");
  if (!place) return;
  place.hidden = !said;
  place.dataset.of = said?.code === "invalid_edit" ? "text" : "";
  place.textContent = said ? [said.detail, said.remedy].filter(Boolean).join(said.detail?.includes("\n") ? "\n" : " ") : "";
}

async function send() {
  const shown = article(), { verb, key } = deciding, button = form().querySelector(".sure");
  const reason = form().elements.reason.value.trim();
  const body = { decision: verb, content_sha256: shown.dataset.sha, round: Number(shown.dataset.round) };
  if (reason) body.reason = reason;
  if (verb === "edit") body.payload = pane.querySelector("#payload").value;
  button.disabled = true;
  button.setAttribute("aria-busy", "true");
  problem(null);
  try {
    finish(shown, verb, await post(`/inbox/${encodeURIComponent(shown.dataset.id)}/decisions`, body, key));
  } catch (refused) {
    if (!refused.problem) throw refused;
    if (article() !== shown) return toast(refused.problem.detail, ["Back to it", `/inbox/${shown.dataset.id}`]);
    // Unsure whether it arrived: the same key is kept, so that sending it again decides once. Refused: a new one.
    if (refused.status && refused.status !== 503) deciding = { verb, key: newKey() };
    problem(refused.problem);
    if (OVER.has(refused.problem.code)) await lapse(shown);
  } finally {
    button.disabled = isStale();
    button.removeAttribute("aria-busy");
  }
}

const isStale = () => Boolean(article()?.classList.contains("stale"));

/** A question that cannot be decided any more: what was written stays, and how it was decided is told if it is known. */
async function lapse(shown) {
  shown.classList.add("stale");
  settled.add(shown.dataset.mark);
  rowOf(shown.dataset.id)?.classList.add("gone");
  for (const button of shown.querySelectorAll("[data-verb], .sure")) button.disabled = true;
  const fresh = await part(`/inbox/${encodeURIComponent(shown.dataset.id)}?part=question`).catch(() => null);
  const how = fresh?.nodes.map((node) => node.querySelector?.(".outcome")).find(Boolean);
  if (!how) return;
  shown.querySelector(".how").replaceChildren(how);
  refreshTimes(shown);
}

async function finish(shown, verb, receipt) {
  const voted = receipt.final === false && verb !== "escalate";
  toast(voted ? `Your vote counts; ${receipt.missing} more needed.` : DONE[verb], ["See the request", `/requests/${shown.dataset.id}`]);
  settled.add(shown.dataset.mark);
  const all = rows(), at = all.findIndex((row) => row.dataset.id === shown.dataset.id);
  const next = all[at + 1] ?? all[at - 1];
  if (at >= 0) all[at].classList.add("gone");
  if (article() !== shown) return refreshList(); // another question is being read or decided already
  deciding = null;
  document.body.classList.remove("editing-now");
  if (isPhone() || !next) {
    document.body.classList.remove("detail");
    history.pushState({}, "", "/inbox");
    pane.replaceChildren();
    await refreshList();
  } else {
    await open(next.dataset.id);
    await refreshList();
  }
}

// What people do

document.addEventListener("click", (event) => {
  const row = event.target.closest(".row");
  if (row && !event.metaKey && !event.ctrlKey && !event.shiftKey) {
    event.preventDefault();
    open(row.dataset.id);
  } else if (event.target.closest("[data-verb]")) begin(event.target.closest("[data-verb]").dataset.verb);
  else if (event.target.closest("[data-back]")) back();
  else if (event.target.closest("#help-open")) help.showModal();
  else if (event.target.closest(".cite[href]")) reveal(event.target.closest(".cite"));
  else if (event.target.closest(".back") && !leaving()) {
    event.preventDefault();
    document.body.classList.remove("detail");
    history.pushState({}, "", "/inbox");
  }
});

function reveal(link) {
  const source = document.getElementById(link.hash.slice(1));
  for (let at = source; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
}

document.addEventListener("submit", (event) => {
  if (!event.target.matches("form.decide")) return;
  event.preventDefault();
  if (deciding && !form().querySelector(".sure").disabled) send();
});

document.addEventListener("input", (event) => {
  if (event.target.id !== "payload") return;
  compareNow();
  if (form()?.querySelector(".problem").dataset.of === "text") problem(null); // it was about the text before
});

document.addEventListener("keydown", (event) => {
  if (help.open || event.altKey || event.isComposing) return;
  if (event.key === "Escape" && deciding) return back();
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && deciding) return form().requestSubmit();
  if (event.ctrlKey || event.metaKey || event.target.closest("input, textarea, select")) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (key in VERBS) begin(VERBS[key]);
  else if (key === "j" || key === "ArrowDown") step(1);
  else if (key === "k" || key === "ArrowUp") step(-1);
  else if (key === "?") help.showModal();
  else return;
  event.preventDefault();
});

addEventListener("popstate", () => {
  const id = location.pathname.split("/")[2];
  document.body.classList.toggle("detail", Boolean(id));
  if (id && id !== article()?.dataset.id) open(decodeURIComponent(id), { push: false });
});

addEventListener("beforeunload", (event) => {
  const text = pane.querySelector("#payload");
  if (deciding?.verb === "edit" && text.value !== text.defaultValue) event.preventDefault();
});

document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && refreshList());

prepare();
