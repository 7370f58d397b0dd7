// Keeps moments readable: "in 3 h 10 min" as time passes, and on hover the reader's own clock beside UTC.
// `gateway/pages/rendering.py` writes the same words.

export function lasting(seconds) {
  const minutes = Math.floor(seconds / 60), hours = Math.floor(seconds / 3600), days = Math.floor(seconds / 86400);
  if (seconds < 60) return `${seconds} s`;
  if (hours < 1) return `${minutes} min`;
  if (days < 1) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return hours % 24 && days < 7 ? `${days} d ${hours % 24} h` : `${days} d`;
}

export function span(at, now) {
  const seconds = Math.round((at - now) / 1000);
  if (Math.abs(seconds) < 5) return "now";
  return seconds > 0 ? `in ${lasting(seconds)}` : `${lasting(-seconds)} ago`;
}

export function refreshTimes(root = document, now = Date.now()) {
  for (const element of root.querySelectorAll("time[datetime]")) {
    const at = Date.parse(element.dateTime);
    if (!element.dataset.utc) {
      element.dataset.utc = element.title;
      element.title = `${new Date(at).toLocaleString()} · ${element.title}`;
    }
    if ("relative" in element.dataset) element.textContent = span(at, now);
    if ("due" in element.dataset) {
      element.textContent = (at <= now ? "overdue, " : "due ") + span(at, now);
      element.classList.toggle("overdue", at <= now);
      element.classList.toggle("soon", at > now && at - now < 3600e3);
    }
  }
}

refreshTimes();
setInterval(refreshTimes, 10_000);
