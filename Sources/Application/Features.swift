import ArgumentParser
import Base
import Node

struct Features: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "What a feature view knows of a key, now or at a moment of the past.")
    @OptionGroup var common: Common
    @Argument(help: "The view.") var view: String
    @Argument(help: "The key, such as an airport's or a customer's.") var key: String
    @Option(name: .long, help: "As of this RFC 3339 time, or position such as orders/0@17: folded again from the log.")
    var asOf: String?

    func run() async throws {
        try await reporting {
            let connection = try common.connection()
            defer { connection.close() }
            let path = "/v1/features/\(Connection.escape(view))/\(Connection.escape(key))"
            let answer = try await connection.ask(
                "GET", path + (asOf.map { "?asOf=" + Connection.escape($0) } ?? "")
            ) { node in
                // Without a running node there is no fold to ask: the log tells what it would know.
                try node.pastFeatures(view: view, key: key, asOf: asOf)
            }
            if common.json { return Terminal.print(answer) }
            Terminal.table(
                ["feature", "value"],
                JSON.sorted(answer["features"]?.object ?? [:]).map { [$0.key, Terminal.cell($0.value)] })
            print("as of \(answer["asOf"]?.string ?? "")")
        }
    }
}
