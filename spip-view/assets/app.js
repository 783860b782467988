// What the pages need a script for: times in the reader's zone, the live stream, completion of queries, keys, copying.
// Text from the log only ever becomes text: textContent and attributes of our own, never markup.
"use strict";
(() => {
  const root = document.documentElement;
  const body = document.body;
  const byId = (id) => document.getElementById(id);
  const element = (name, text, kind) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (kind) made.className = kind;
    return made;
  };

  // Light or dark, as chosen; without a choice as the system has it.
  const theme = (() => { try { return localStorage.getItem("theme"); } catch { return null; } })();
  if (theme === "light" || theme === "dark") root.classList.add(theme);
  const toggle = () => {
    const isDark = root.classList.contains("dark") ||
      (!root.classList.contains("light") && matchMedia("(prefers-color-scheme: dark)").matches);
    root.classList.remove("light", "dark");
    root.classList.add(isDark ? "light" : "dark");
    try { localStorage.setItem("theme", isDark ? "light" : "dark"); } catch { /* stays for this page */ }
  };
  byId("theme")?.addEventListener("click", toggle);

  // Times in the reader's zone, where the page was asked for them.
  const isLocal = body.dataset.zone === "local";
  const two = (number) => String(number).padStart(2, "0");
  const local = (text) => {
    const time = new Date(text);
    if (Number.isNaN(time.getTime())) return text;
    return `${time.getFullYear()}-${two(time.getMonth() + 1)}-${two(time.getDate())} ` +
      `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;
  };
  const shownTime = (text) => isLocal ? local(text) : text.slice(0, 19).replace("T", " ");
  if (isLocal) for (const time of document.querySelectorAll("time")) time.textContent = local(time.dateTime);

  // Characters that hide or turn text are shown as what they are, as the server does.
  const hidden = /[\p{Cc}\p{Cf}\u2028\u2029\u{e0000}-\u{e0fff}]/gu;
  const shown = (text) => text.replace(hidden, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);

  // The live stream.
  const rows = byId("live");
  const state = byId("live-state");
  const pause = byId("live-pause");
  if (rows && state && pause) {
    let isPaused = false;
    let held = 0;
    const base = new URLSearchParams(location.search);
    const address = (path) => {
      const kept = new URLSearchParams(base);
      kept.delete("after");
      const query = kept.toString();
      return query ? `${path}?${query}` : path;
    };
    const cell = (row, text, kind, link) => {
      const made = element("td", undefined, kind);
      if (link) {
        const anchor = element("a", text);
        anchor.href = link;
        made.append(anchor);
      } else {
        made.textContent = text;
      }
      row.append(made);
    };
    const add = (row) => {
      if (isPaused) { held += 1; state.textContent = `paused, ${held} held back`; return; }
      rows.prepend(row);
      while (rows.children.length > 100) rows.lastElementChild.remove();
    };
    const source = new EventSource(address("/api/v1/live"));
    source.addEventListener("open", () => { if (!isPaused) state.textContent = "live"; });
    source.addEventListener("error", () => { if (!isPaused) state.textContent = "interrupted, connecting again"; });
    source.addEventListener("session", (event) => {
      const line = JSON.parse(event.data);
      const row = element("tr");
      cell(row, shownTime(line.time), "t", address(`/sessions/${encodeURIComponent(line.id)}`));
      cell(row, line.source, "x", address(`/sources/${encodeURIComponent(line.source)}`));
      if (line.country) row.lastElementChild.append(" ", element("span", shown(line.country), "soft"));
      const port = line.transport === "udp" ? `${line.port}/udp` : String(line.port);
      cell(row, port, "n", address(`/ports/${encodeURIComponent(port)}`));
      cell(row, (line.protocol ?? "") + (line.is_tls ? " (TLS)" : ""));
      cell(row, String(line.bytes_in), "n");
      cell(row, "", "x");
      for (const tag of line.tags ?? []) {
        const link = element("a", shown(tag.name), "tag");
        link.href = address(`/clients/tag/${encodeURIComponent(tag.id)}`);
        row.lastElementChild.append(link, " ");
      }
      row.lastElementChild.append(shown(line.summary ?? ""));
      add(row);
    });
    source.addEventListener("scan", (event) => {
      const line = JSON.parse(event.data);
      const row = element("tr");
      cell(row, shownTime(line.time), "t");
      cell(row, line.source, "x", address(`/sources/${encodeURIComponent(line.source)}`));
      cell(row, "", "n");
      cell(row, "half-open");
      cell(row, "", "n");
      cell(row, `${line.count} SYNs to ${line.ports} ports`, "soft");
      add(row);
    });
    source.addEventListener("skipped", () => {
      if (!isPaused) state.textContent = "live, some records are left out: they come faster than can be read";
    });
    const setPaused = (on) => {
      isPaused = on;
      held = 0;
      pause.textContent = on ? "Go on" : "Pause";
      state.textContent = on ? "paused" : "live";
    };
    pause.addEventListener("click", () => setPaused(!isPaused));
    addEventListener("beforeunload", () => source.close());
  }

  // Completion of the word before the cursor.
  const query = document.querySelector("form.filter input[name=q]");
  const fields = (() => { try { return JSON.parse(body.dataset.fields ?? "[]"); } catch { return []; } })();
  if (query && fields.length) {
    const list = element("ul");
    list.id = "fields";
    list.hidden = true;
    list.setAttribute("role", "listbox");
    query.after(list);
    let chosen = -1;
    const word = () => /[A-Za-z0-9_]*$/.exec(query.value.slice(0, query.selectionStart ?? 0))?.[0] ?? "";
    const close = () => { list.hidden = true; chosen = -1; };
    const take = (name) => {
      const at = query.selectionStart ?? query.value.length;
      const begin = at - word().length;
      query.value = `${query.value.slice(0, begin)}${name}:${query.value.slice(at)}`;
      query.selectionStart = query.selectionEnd = begin + name.length + 1;
      close();
      query.focus();
    };
    const mark = () => [...list.children].forEach((item, index) => item.setAttribute("aria-selected", String(index === chosen)));
    query.addEventListener("input", () => {
      const begin = word().toLowerCase();
      const found = begin ? fields.filter(([name]) => name.startsWith(begin) && name !== begin) : [];
      list.replaceChildren(...found.slice(0, 12).map(([name, meaning]) => {
        const item = element("li");
        item.append(element("code", `${name}:`), " ", element("span", meaning, "soft"));
        item.addEventListener("mousedown", (event) => { event.preventDefault(); take(name); });
        item.dataset.name = name;
        return item;
      }));
      list.hidden = found.length === 0;
      list.style.left = `${query.offsetLeft}px`;
      list.style.top = `${query.offsetTop + query.offsetHeight}px`;
      chosen = -1;
    });
    query.addEventListener("blur", close);
    query.addEventListener("keydown", (event) => {
      if (list.hidden) return;
      const last = list.children.length - 1;
      if (event.key === "ArrowDown") chosen = Math.min(chosen + 1, last);
      else if (event.key === "ArrowUp") chosen = Math.max(chosen - 1, 0);
      else if (event.key === "Escape") { close(); return; }
      else if ((event.key === "Tab" || event.key === "Enter") && chosen >= 0) take(list.children[chosen].dataset.name);
      else return;
      event.preventDefault();
      mark();
    });
  }

  // Copying.
  for (const button of document.querySelectorAll("button[data-copy]")) {
    button.addEventListener("click", async () => {
      const text = byId(button.dataset.copy)?.textContent ?? "";
      try {
        await navigator.clipboard.writeText(text);
        button.textContent = "Copied";
      } catch {
        button.textContent = "Not allowed here: select and copy";
      }
    });
  }

  // A choice in the filter holds at once.
  for (const select of document.querySelectorAll("form.filter select")) {
    select.addEventListener("change", () => select.form.requestSubmit());
  }

  // Keys.
  const help = byId("help");
  byId("keys")?.addEventListener("click", () => help?.showModal());
  let went = false;
  addEventListener("keydown", (event) => {
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target?.tagName ?? "");
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (went) {
      went = false;
      const link = document.querySelector(`header nav a[data-key="${CSS.escape(event.key)}"]`);
      if (link) { event.preventDefault(); location.href = link.href; }
      return;
    }
    if (event.key === "/") { event.preventDefault(); query?.focus(); }
    else if (event.key === "g") went = true;
    else if (event.key === "p") pause?.click();
    else if (event.key === "t") toggle();
    else if (event.key === "?") help?.showModal();
  });
})();
