import ArgumentParser
import Base
import Node

struct StreamView: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "view",
        abstract: "What a table that a stream serves holds for a key, now or at a moment of the past.")
    @OptionGroup var common: Common
    @Argument(help: "The stream.") var stream: String
    @Argument(help: "The table, by the name it is served as.") var view: String
    @Argument(help: "The key.") var key: String
    @Option(name: .long, help: "As of this RFC 3339 time, or position such as orders/0@17: folded again from the log.")
    var asOf: String?
    @Option(name: .long, help: "In state that `replay --into` kept in this folder.") var state: String?

    func validate() throws {
        guard asOf == nil || state == nil else { throw ValidationError("--state is as of where it was folded to.") }
    }

    func run() async throws {
        try await reporting {
            let connection = try common.connection()
            defer { connection.close() }
            if let state {
                guard let node = connection.local else {
                    throw NodeError("node-runs", "a node has this data directory; stop it first")
                }
                return show(try node.view(stream: stream, view: view, key: key, state: state))
            }
            let path = "/v1/streams/" + [stream, view, key].map { Connection.escape($0) }.joined(separator: "/")
            let answer = try await connection.ask(
                "GET", path + (asOf.map { "?asOf=" + Connection.escape($0) } ?? "")
            ) { node in
                try await node.view(stream: stream, view: view, key: key, asOf: asOf)
            }
            show(answer)
        }
    }

    private func show(_ answer: JSON) {
        if common.json { return Terminal.print(answer) }
        let value = answer["value"] ?? .null
        let rows =
            value.object.map { JSON.sorted($0).map { [$0.key, Terminal.cell($0.value)] } }
            ?? [["value", Terminal.cell(value)]]
        Terminal.table(["what", "value"], rows)
        print("of \(answer["time"]?.string ?? ""), as of \(answer["asOf"]?.string ?? "")")
    }
}
