import ArgumentParser
import Base
import Node

struct Replay: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract:
            "Fold history again in shadow state, effects off, and compare every derived event and state digest with the log."
    )
    @OptionGroup var common: Common
    @Option(name: .long, help: "Replay up to this RFC 3339 time, or position such as orders/0@17.") var to: String?
    @Option(name: .long, help: "Replay this stream; the workspace's own topology when absent.") var processor: String?
    @Option(name: .long, help: "Keep the rebuilt state of the stream in this folder; what is there is folded on.")
    var into: String?
    @Flag(name: .long, help: "With --into: compare as well.") var compare = false
    @Flag(
        name: .long,
        help: "Let the program's changed stream take over from the one in force, where that came to rest.")
    var swap = false

    func validate() throws {
        guard processor != nil || (into == nil && !swap) else {
            throw ValidationError("--into and --swap are for a stream: name it with --processor.")
        }
        guard !swap || (into == nil && to == nil && !compare) else {
            throw ValidationError("--swap folds to where the stream in force came to rest; it takes no other option.")
        }
    }

    func run() async throws {
        try await reporting {
            let connection = try common.connection(triesChanges: true)
            defer { connection.close() }
            guard let processor, swap || into != nil else {
                return try finish(try await verdict(connection), common.json)
            }
            guard let node = connection.local else {
                throw NodeError(
                    "node-runs",
                    "a node has this data directory; stop it first, or replay on a backup of its log (headrace log backup)"
                )
            }
            let answer =
                swap
                ? try node.swap(stream: processor)
                : try node.replay(stream: processor, to: try Node.limit(to), into: into, compares: compare)
            guard answer["verdict"] == nil else { return try finish(answer, common.json) }
            if common.json { return Terminal.print(answer) }
            let count = answer["eventsFolded"]?.int ?? 0
            let seconds = Terminal.cell(answer["seconds"] ?? .null)
            print(
                swap
                    ? "'\(processor)' took over: \(count) events folded in \(seconds) s; it speaks from here on"
                    : "\(count) events folded in \(seconds) s; the state is in \(into ?? "")")
        }
    }

    private func verdict(_ connection: Connection) async throws -> JSON {
        let query = [("to", to), ("processor", processor)].compactMap { name, value in
            value.map { "\(name)=\(Connection.escape($0))" }
        }
        let path = "/v1/replay" + (query.isEmpty ? "" : "?" + query.joined(separator: "&"))
        return try await connection.ask("POST", path, body: []) { node in
            try node.replay(to: to, processor: processor)
        }
    }
}
