import Base
import Foundation

/// Prints answers for people.
enum Terminal {
    static func print(_ json: JSON) { Swift.print(json.text) }

    /// A table with aligned columns; numbers to the right.
    static func table(_ columns: [String], _ rows: [[String]]) {
        guard !rows.isEmpty else {
            Swift.print("(none)")
            return
        }
        var widths = columns.map(\.count)
        for row in rows { for (index, cell) in row.enumerated() { widths[index] = max(widths[index], cell.count) } }
        let numeric = columns.indices.map { column in
            rows.allSatisfy {
                $0[column].isEmpty || $0[column] == "–"
                    || Double($0[column].replacingOccurrences(of: "%", with: "")) != nil
            }
        }
        func line(_ cells: [String]) -> String {
            cells.enumerated().map { index, cell in
                let pad = String(repeating: " ", count: widths[index] - cell.count)
                return numeric[index] ? pad + cell : (index == cells.count - 1 ? cell : cell + pad)
            }.joined(separator: "  ")
        }
        Swift.print(line(columns))
        Swift.print(widths.map { String(repeating: "─", count: $0) }.joined(separator: "  "))
        for row in rows { Swift.print(line(row)) }
    }

    static func number(_ json: JSON?, _ digits: Int) -> String {
        guard let value = json?.double else { return "–" }
        return String(format: "%.\(digits)f", value)
    }

    static func cell(_ json: JSON) -> String {
        switch json {
        case .null: "–"
        case .string(let text): text
        default: json.text
        }
    }

    static func bytes(_ json: JSON?) -> String {
        guard let value = json?.double else { return "–" }
        return String(format: "%.0f MB", value / 1e6)
    }

    static func report(_ json: JSON) {
        var rows: [[String]] = []
        for month in json["months"]?.array ?? [] {
            let retrains = (month["retrains"]?.array ?? []).map { retrain in
                let kinds = (retrain["causes"]?.array ?? []).compactMap { $0["kind"]?.string }.joined(separator: "+")
                return
                    "\(retrain["at"]?.string?.prefix(10) ?? "") \(kinds) → \(retrain["version"]?.int ?? 0) \(retrain["result"]?.string ?? "")"
            }
            let versions = (month["models"]?.array ?? []).compactMap {
                $0.string?.split(separator: "@").last.map(String.init)
            }
            rows.append([
                month["month"]?.string ?? "", String(month["questions"]?.int ?? 0), number(month["auc"], 4),
                number(month["firstModelAUC"], 4),
                number(month["logLoss"], 4), String(format: "%.1f%%", (month["coverage"]?.double ?? 0) * 100),
                versions.isEmpty ? "–" : versions.joined(separator: " "), retrains.joined(separator: "; "),
            ])
        }
        table(["month", "questions", "AUC", "first model", "log loss", "coverage", "versions", "retrains"], rows)
        let span = (json["meanOver"]?.array ?? []).compactMap(\.string).joined(separator: " to ")
        Swift.print(
            "\nmean AUC \(span.isEmpty ? "of all months" : span): \(number(json["meanAUC"], 4)) (the first model alone: \(number(json["firstModelMeanAUC"], 4)))"
        )
        let seconds = json["seconds"]?.double ?? 0
        let events = json["events"]?.double ?? 0
        if seconds > 0 {
            Swift.print(
                String(
                    format: "%.0f events in %.1f s: %.0f events/s, peak memory %@", events, seconds, events / seconds,
                    bytes(json["peakMemoryBytes"])))
        }
    }

    /// A tree: each node once, under the first that names it.
    static func lineage(_ json: JSON) {
        var nodes: [String: JSON] = [:]
        for node in json["nodes"]?.array ?? [] { nodes[node["id"]?.string ?? ""] = node }
        var children: [String: [String]] = [:]
        for edge in json["edges"]?.array ?? [] {
            children[edge["from"]?.string ?? "", default: []].append(edge["to"]?.string ?? "")
        }
        var shown: Set<String> = []
        func show(_ id: String, _ depth: Int) {
            let indent = String(repeating: "  ", count: depth)
            guard let node = nodes[id] else {
                Swift.print("\(indent)\(id)  …")
                return
            }
            guard shown.insert(id).inserted else {
                Swift.print("\(indent)\(id)  (above)")
                return
            }
            let facts = JSON.sorted(node["facts"]?.object ?? [:]).map { "\($0.key)=\(cell($0.value).prefix(72))" }
                .joined(separator: " ")
            let position = node["position"]?.string.map { " (\($0))" } ?? ""
            Swift.print("\(indent)\(id)\(position)\(facts.isEmpty ? "" : "  \(facts)")")
            for child in children[id] ?? [] { show(child, depth + 1) }
        }
        if let root = json["nodes"]?.array?.first?["id"]?.string { show(root, 0) }
        Swift.print("\n\(nodes.count) nodes, \(json["edges"]?.array?.count ?? 0) edges")
    }

    static func verdict(_ json: JSON) {
        Swift.print("\(json["verdict"]?.string ?? "")  \(json["subject"]?.string ?? "")")
        Swift.print(json["reason"]?.string ?? "")
        for (name, value) in JSON.sorted(json.object ?? [:]) where !["verdict", "subject", "reason"].contains(name) {
            Swift.print("  \(name): \(cell(value))")
        }
    }
}
