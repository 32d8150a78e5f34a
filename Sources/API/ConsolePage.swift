import Base
import Foundation
import HTTP

/// The console: one page, rendered on the server, kept live by a fragment and a JSON answer every second.
package enum ConsolePage {
    /// Where Debian's libjs-chart.js puts Chart.js 3.9; served from there, never copied into the project.
    static let libraries = ["/usr/share/javascript/chart.js/chart.min.js", "/usr/share/javascript/chart.js/chart.js"]

    package static func install(on server: HTTPServer, node: any NodeReading) {
        let pool = BlockingPool(name: "console", threads: 1, limit: 64)
        server.route("GET", "/") { _ in
            .text(
                try await pool.run { page(body: fragment(try node.console())) }, contentType: "text/html; charset=utf-8"
            )
        }
        server.route("GET", "/console/fragment") { _ in
            .text(try await pool.run { fragment(try node.console()) }, contentType: "text/html; charset=utf-8")
        }
        server.route("GET", "/console.js") { _ in .text(script, contentType: "text/javascript; charset=utf-8") }
        server.route("GET", "/console.css") { _ in .text(style, contentType: "text/css; charset=utf-8") }
        server.route("GET", "/chart.js") { _ in
            for path in libraries {
                if let data = FileManager.default.contents(atPath: path) {
                    return WebResponse(contentType: "text/javascript; charset=utf-8", body: .bytes([UInt8](data)))
                }
            }
            throw APIError(
                "not-found", "Chart.js is not installed; ./start installs it, or: apt-get install libjs-chart.js")
        }
    }

    private static func escape(_ text: String) -> String {
        text.replacingOccurrences(of: "&", with: "&amp;").replacingOccurrences(of: "<", with: "&lt;")
            .replacingOccurrences(of: ">", with: "&gt;").replacingOccurrences(of: "\"", with: "&quot;")
    }

    private static func text(_ json: JSON?) -> String {
        switch json {
        case .string(let text)?: escape(text)
        case .null?, nil: "–"
        case let value?: escape(value.text)
        }
    }

    private static func number(_ json: JSON?, _ digits: Int) -> String {
        json?.double.map { String(format: "%.\(digits)f", $0) } ?? "–"
    }

    private static func table(_ caption: String, _ head: [String], _ rows: [[String]], empty: String) -> String {
        guard !rows.isEmpty else { return "<h2>\(caption)</h2><p class=\"empty\">\(empty)</p>" }
        let cells = rows.map { "<tr>" + $0.map { "<td>\($0)</td>" }.joined() + "</tr>" }.joined()
        let heads = head.map { "<th scope=\"col\">\($0)</th>" }.joined()
        return
            "<h2>\(caption)</h2><div class=\"scroll\"><table><thead><tr>\(heads)</tr></thead><tbody>\(cells)</tbody></table></div>"
    }

    /// The live part as HTML: tiles and tables.
    static func fragment(_ json: JSON) -> String {
        let status = json["status"]
        let fold = status?["fold"]
        let models = json["models"]?.array ?? []
        let current = models.last { $0["state"]?.string == "deployed" }
        let auc = json["days"]?.array?.last
        let connector = status?["connectors"]?.array?.first
        let tiles: [(String, String, String)] = [
            ("State", text(status?["state"]), text(status?["failures"]?.array?.first ?? .string("nothing has failed"))),
            (
                "Stream time", text(fold?["streamTime"]).replacingOccurrences(of: "T", with: " "),
                "\(text(connector?["name"])): \(text(connector?["state"]))"
            ),
            ("Events in the log", text(status?["events"]), "<span id=\"rate\">–</span> events/s"),
            (
                "Model", current.map { "\(text($0["model"]))@\(text($0["version"]))" } ?? "–",
                current.map { "deployed \(text($0["deployedAt"]))" } ?? "none deployed yet"
            ),
            ("AUC of the last full day", number(auc?["auc"], 4), text(auc?["day"])),
        ]
        var html = "<section class=\"tiles\">"
        for (name, value, note) in tiles {
            html += "<div class=\"tile\"><h2>\(name)</h2><p class=\"value\">\(value)</p><p>\(note)</p></div>"
        }
        html += "</section><section class=\"columns\"><div>"
        html += table(
            "Topics", ["topic", "records", "events/s"],
            (json["topics"]?.array ?? []).map {
                [text($0["name"]), text($0["records"]), "<span data-topic=\"\(text($0["name"]))\">–</span>"]
            },
            empty: "No topic holds an event yet. Publish one with <code>headrace publish</code>.")
        html += "</div><div>"
        html += table(
            "Models", ["version", "state", "requested", "AUC", "note"],
            models.reversed().map {
                [
                    "\(text($0["model"]))@\(text($0["version"]))", text($0["state"]), text($0["requestedAt"]),
                    number($0["auc"], 4), text($0["reason"]),
                ]
            },
            empty: "No model was trained yet: the first cut comes after the model's <code>firstCutAfter</code>.")
        html += "</div></section>"
        html += table(
            "Last events", ["time", "topic", "id", "data"],
            (json["recent"]?.array ?? []).map {
                [text($0["time"]), text($0["topic"]), text($0["id"]), "<code>\(text($0["data"]))</code>"]
            },
            empty: "Nothing was served, observed or refused yet.")
        return html
    }

    private static func page(body: String) -> String {
        """
        <!doctype html><html lang="en"><head><meta charset="utf-8"><title>Headrace</title>
        <meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
        <link rel="icon" href="data:,"><link rel="stylesheet" href="/console.css"></head><body>
        <a class="skip" href="#main">Skip to content</a>
        <header><h1>Headrace</h1><p id="live" role="status">connecting…</p>
        <button id="theme" type="button" aria-label="Switch between light and dark">◐</button></header>
        <main id="main"><div id="fragment">\(body)</div>
        <section class="charts"><figure><figcaption>Daily AUC, with deployments</figcaption><div class="plot"><canvas id="auc" role="img" aria-label="Daily AUC over time; the same numbers are in the table performance_days"></canvas></div></figure>
        <figure><figcaption>PSI by feature against its limit, last full day</figcaption><div class="plot"><canvas id="psi" role="img" aria-label="Population stability by feature; the same numbers are in the table drift_days"></canvas></div></figure>
        <figure><figcaption>Events per second by topic</figcaption><div class="plot"><canvas id="rates" role="img" aria-label="Events per second by topic"></canvas></div></figure></section>
        </main><script src="/chart.js"></script><script src="/console.js"></script></body></html>
        """
    }

    static let style = """
        :root { --ground: #fbfbfa; --panel: #fff; --ink: #1c2024; --soft: #5b6470; --line: #dfe3e8; --accent: #0b6bcb; --mark: #b54708; }
        @media (prefers-color-scheme: dark) { :root:not([data-theme=light]) { --ground: #14171a; --panel: #1c2126; --ink: #e8eaed; --soft: #a3adb8; --line: #333b44; --accent: #6cb6ff; --mark: #f0a35e; } }
        :root[data-theme=dark] { --ground: #14171a; --panel: #1c2126; --ink: #e8eaed; --soft: #a3adb8; --line: #333b44; --accent: #6cb6ff; --mark: #f0a35e; }
        * { box-sizing: border-box; } body { margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.45 system-ui, sans-serif; }
        header { display: flex; align-items: baseline; gap: 1rem; padding: .8rem 1.4rem; border-bottom: 1px solid var(--line); background: var(--panel); }
        h1 { font-size: 1.15rem; margin: 0; } h2 { font-size: .8rem; color: var(--soft); margin: 0 0 .4rem; font-weight: 600; }
        #live { margin: 0; color: var(--soft); flex: 1; } button { min-width: 32px; min-height: 32px; border: 1px solid var(--line); background: var(--panel); color: var(--ink); border-radius: 6px; cursor: pointer; }
        main { padding: 1.2rem 1.4rem; max-width: 1500px; margin: 0 auto; display: flex; flex-direction: column; gap: 1.2rem; } .skip { position: absolute; left: -999px; } .skip:focus { left: 1rem; top: .5rem; background: var(--panel); padding: .3rem .6rem; }
        #fragment { display: contents; } .tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(210px, 1fr)); gap: .8rem; order: 1; }
        .tile, figure, .columns > div { background: var(--panel); border: 1px solid var(--line); border-radius: 8px; padding: .8rem 1rem; margin: 0; min-width: 0; }
        .tile p { margin: 0; color: var(--soft); font-size: .85rem; } .tile .value { font-size: 1.35rem; color: var(--ink); font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
        .charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(420px, 1fr)); gap: .8rem; order: 2; } figcaption { font-size: .8rem; font-weight: 600; color: var(--soft); margin-bottom: .4rem; } .plot { position: relative; height: 260px; }
        .columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(420px, 1fr)); gap: .8rem; order: 3; } #fragment > h2 { order: 4; margin-bottom: -.8rem; } #fragment > .scroll, #fragment > .empty { order: 5; }
        .scroll { overflow: auto; max-height: 340px; } table { border-collapse: collapse; width: 100%; font-size: .85rem; font-variant-numeric: tabular-nums; } th { text-align: left; color: var(--soft); font-weight: 600; position: sticky; top: 0; background: var(--panel); }
        td:first-child { white-space: nowrap; } td, th { padding: .25rem .6rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top; } code { font-size: .8rem; color: var(--soft); overflow-wrap: anywhere; } .empty { color: var(--soft); }
        :focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
        """

    static let script = """
        'use strict';
        const charts = {}; let previous = null; const history = {}; const limit = 120;
        const ink = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
        function make(id, config) {
          if (!window.Chart) return null;
          const options = Object.assign({ animation: false, responsive: true, maintainAspectRatio: false, interaction: { mode: 'index', intersect: false } }, config.options || {});
          charts[id] = new Chart(document.getElementById(id), { type: config.type, data: { labels: [], datasets: [] }, options });
          return charts[id];
        }
        function colours() { if (window.Chart) { Chart.defaults.color = ink('--soft'); Chart.defaults.borderColor = ink('--line'); } for (const id in charts) { const c = charts[id]; for (const s of Object.values(c.options.scales || {})) { s.ticks = Object.assign(s.ticks || {}, { color: ink('--soft') }); s.grid = Object.assign(s.grid || {}, { color: ink('--line') }); s.title = Object.assign(s.title || {}, { color: ink('--soft') }); } c.update(); } }
        document.getElementById('theme').addEventListener('click', () => {
          const dark = document.documentElement.dataset.theme ? document.documentElement.dataset.theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
          document.documentElement.dataset.theme = dark ? 'light' : 'dark'; colours(); });
        make('auc', { type: 'line', options: { spanGaps: false, scales: { y: { title: { display: true, text: 'AUC' } }, x: { ticks: { maxTicksLimit: 12 } } } } });
        make('psi', { type: 'bar', options: { indexAxis: 'x', scales: { y: { title: { display: true, text: 'PSI' }, beginAtZero: true }, x: { ticks: { autoSkip: false, maxRotation: 70, minRotation: 50, font: { size: 10 } } } } } });
        make('rates', { type: 'line', options: { scales: { y: { beginAtZero: true, title: { display: true, text: 'events/s' } }, x: { ticks: { maxTicksLimit: 8 } } } } });
        colours();
        const palette = ['#0b6bcb', '#b54708', '#3f8f4f', '#8b5cf6', '#c2255c', '#0f8a8a'];
        function draw(json) {
          if (charts.auc) {
            const days = json.days, marks = {};
            for (const m of json.models) if (m.state === 'deployed' && m.deployedAt) marks[m.deployedAt.slice(0, 10)] = m.version;
            charts.auc.data = { labels: days.map(d => d.day), datasets: [
              { label: 'daily AUC', data: days.map(d => d.auc), borderColor: ink('--accent'), pointRadius: 0, borderWidth: 1.5 },
              { label: 'model deployed', data: days.map(d => marks[d.day] ? d.auc : null), pointStyle: 'triangle', pointRadius: 7, showLine: false, borderColor: ink('--mark'), backgroundColor: ink('--mark') } ] };
            charts.auc.update();
          }
          if (charts.psi) {
            charts.psi.data = { labels: json.drift.map(d => d.feature), datasets: [
              { label: 'PSI', data: json.drift.map(d => d.psi), backgroundColor: ink('--accent') },
              { label: 'limit', data: json.drift.map(d => d.limit), type: 'line', showLine: false, pointStyle: 'dash', pointRadius: 9, borderWidth: 2, borderColor: ink('--mark') } ] };
            charts.psi.update();
          }
        }
        function rates(json) {
          const now = Date.now(), counts = {}; for (const t of json.topics) counts[t.name] = t.records;
          if (previous) {
            const seconds = (now - previous.now) / 1000;
            const total = Math.max(0, (json.status.events - previous.events) / seconds);
            document.getElementById('rate').textContent = Math.round(total).toLocaleString();
            for (const cell of document.querySelectorAll('[data-topic]')) {
              const name = cell.dataset.topic, rate = Math.max(0, (counts[name] - (previous.counts[name] || 0)) / seconds);
              cell.textContent = Math.round(rate).toLocaleString(); (history[name] = history[name] || []).push(rate); if (history[name].length > limit) history[name].shift();
            }
            if (charts.rates) {
              const names = Object.keys(history).sort((a, b) => counts[b] - counts[a]).slice(0, 6); const length = Math.max(0, ...names.map(n => history[n].length));
              charts.rates.data = { labels: Array.from({ length }, (_, i) => (i - length + 1) + ' s'), datasets: names.map((n, i) => ({ label: n, data: history[n], pointRadius: 0, borderWidth: 1.5, borderColor: palette[i], borderDash: i % 2 ? [5, 3] : [] })) };
              charts.rates.update();
            }
          }
          previous = { now, events: json.status.events, counts };
        }
        async function refresh() {
          try {
            const [html, json] = await Promise.all([fetch('/console/fragment').then(r => r.text()), fetch('/v1/console').then(r => r.json())]);
            document.getElementById('fragment').innerHTML = html; rates(json); draw(json);
            document.getElementById('live').textContent = 'live, as of ' + (json.status.fold.streamTime ?? 'the beginning'); document.body.dataset.loaded = 'yes';
          } catch (error) { document.getElementById('live').textContent = 'the node does not answer; trying again'; }
          setTimeout(refresh, 1000);
        }
        refresh();
        """
}
