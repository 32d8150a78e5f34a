import Base

/// What a typed topology consists of, as text, JSON or a picture.
public struct TopologyDescription: Sendable {
    /// The stream's.
    public let name: String
    /// The builder's.
    public let version: Int
    /// The operators, in the order in which they were written down.
    public let nodes: [StreamNode]

    /// A line an operator, in the order they were written down, with where its input comes from.
    public var text: String {
        var lines = ["topology \(name)" + (version == 1 ? "" : ", version \(version)")]
        for node in nodes {
            var line = "  \(node.number) \(node.kind.rawValue)"
            if node.name != node.kind.rawValue { line += " '\(node.name)'" }
            if !node.parents.isEmpty { line += " <- \(node.parents.map(String.init).joined(separator: ", "))" }
            if !node.settings.isEmpty { line += "  (\(node.settings.joined(separator: ", ")))" }
            if let store = node.store { line += "  [store \(store)]" }
            lines.append(line)
        }
        return lines.joined(separator: "\n")
    }

    /// As its definition has it in the log.
    public var json: JSON {
        .object([
            "topology": .string(name), "version": .int(Int64(version)),
            "nodes": .array(
                nodes.map { node in
                    var members: [String: JSON] = [
                        "number": .int(Int64(node.number)), "kind": .string(node.kind.rawValue),
                        "name": .string(node.name), "parents": .array(node.parents.map { .int(Int64($0)) }),
                    ]
                    if !node.settings.isEmpty { members["settings"] = .array(node.settings.map { .string($0) }) }
                    if let topic = node.topic { members["topic"] = .string(topic) }
                    if let store = node.store { members["store"] = .string(store) }
                    return .object(members)
                }),
        ])
    }

    /// A picture in Mermaid's language: topics are stadiums, stores cylinders.
    public var mermaid: String {
        var chart = Flowchart()
        for node in nodes {
            chart.node("n\(node.number)", node.topic ?? node.name, node.topic == nil ? .box : .stadium)
            guard let store = node.store else { continue }
            chart.node("s\(node.number)", store, .cylinder)
            chart.line("n\(node.number)", "s\(node.number)")
        }
        for node in nodes {
            for parent in node.parents { chart.arrow("n\(parent)", "n\(node.number)") }
        }
        return chart.text
    }
}
