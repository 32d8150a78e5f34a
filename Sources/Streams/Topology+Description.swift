import Base

extension Topology {
    /// What it consists of, for people: a block a stage, in the order in which an event visits them.
    package var text: String {
        var lines = ["topology \(name)"]
        for stage in stages {
            lines.append("  \(stage.name)")
            if !stage.inputs.isEmpty { lines.append("    reads  \(stage.inputs.joined(separator: ", "))") }
            if !stage.outputs.isEmpty { lines.append("    emits  \(stage.outputs.joined(separator: ", "))") }
            if !stage.stores.isEmpty { lines.append("    keeps  \(stage.stores.map(\.name).joined(separator: ", "))") }
        }
        if !answers.isEmpty { lines.append("  answers of effectors: \(answers.sorted().joined(separator: ", "))") }
        return lines.joined(separator: "\n")
    }

    package var json: JSON {
        .object([
            "topology": .string(name),
            "stages": .array(
                stages.map { stage in
                    .object([
                        "name": .string(stage.name), "inputs": .array(stage.inputs.map { .string($0) }),
                        "outputs": .array(stage.outputs.map { .string($0) }),
                        "stores": .array(stage.stores.map { .string($0.name) }),
                    ])
                }),
            "answers": .array(answers.sorted().map { .string($0) }),
        ])
    }

    /// A picture in Mermaid's language: topics are stadiums, stages boxes.
    package var mermaid: String {
        var chart = Flowchart()
        var numbers: [String: Int] = [:]
        func topic(_ name: String) -> String {
            if let known = numbers[name] { return "t\(known)" }
            let id = "t\(numbers.count)"
            numbers[name] = numbers.count
            chart.node(id, name, .stadium)
            return id
        }
        for (number, stage) in stages.enumerated() {
            chart.node("s\(number)", stage.name, .box)
            for name in stage.inputs { chart.arrow(topic(name), "s\(number)") }
            for name in stage.outputs { chart.arrow("s\(number)", topic(name)) }
        }
        return chart.text
    }
}
