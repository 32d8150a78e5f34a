/// A flowchart in Mermaid's language, which code hosts and editors draw.
struct Flowchart {
    enum Shape { case box, stadium, cylinder }

    private var lines = ["flowchart LR"]

    mutating func node(_ id: String, _ label: String, _ shape: Shape) {
        let text =
            "\"" + label.split(separator: "\"", omittingEmptySubsequences: false).joined(separator: "#quot;") + "\""
        switch shape {
        case .box: lines.append("    \(id)[\(text)]")
        case .stadium: lines.append("    \(id)([\(text)])")
        case .cylinder: lines.append("    \(id)[(\(text))]")
        }
    }

    mutating func arrow(_ from: String, _ to: String) { lines.append("    \(from) --> \(to)") }
    mutating func line(_ from: String, _ to: String) { lines.append("    \(from) -.- \(to)") }

    var text: String { lines.joined(separator: "\n") }
}
