import ArgumentParser
import Base
import Node

/// What is folded into what.
struct TopologyCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "topology", abstract: "What is folded: stages, their topics and their state.",
        subcommands: [DescribeTopology.self], defaultSubcommand: DescribeTopology.self)
}

struct DescribeTopology: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "describe", abstract: "As text, JSON or a picture.")
    @OptionGroup var common: Common
    @Argument(help: "A stream; the workspace's own topology, and with it the text of every stream, when absent.")
    var stream: String?
    @Flag(name: .long, help: "As a Mermaid flowchart.") var mermaid = false

    func run() async throws {
        try await reporting {
            let connection = try common.connection()
            defer { connection.close() }
            let answer = try await connection.ask("GET", "/v1/topology") { node in try node.topology() }
            if let stream {
                guard let found = answer["streams"]?.array?.first(where: { $0["topology"]?.string == stream }) else {
                    throw NodeError("unknown-stream", "there is no stream '\(stream)' in this program")
                }
                if mermaid { return print(answer["pictures"]?[stream]?.string ?? "") }
                return Terminal.print(found)
            }
            if mermaid { return print(answer["mermaid"]?.string ?? "") }
            if common.json { return Terminal.print(answer) }
            print(answer["text"]?.string ?? "")
        }
    }
}
