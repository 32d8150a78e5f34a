import ArgumentParser
import Base
import Node

struct Features: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract:
            "What a feature view knows of a key, now or at a moment of the past; without a key, what is known of the view; without a view, which there are."
    )
    @OptionGroup var common: Common
    @Argument(help: "The view.") var view: String?
    @Argument(help: "The key, such as an airport's or a customer's.") var key: String?
    @Option(name: .long, help: "As of this RFC 3339 time, or position such as orders/0@17: folded again from the log.")
    var asOf: String?

    func run() async throws {
        try await reporting {
            let connection = try common.connection()
            defer { connection.close() }
            guard let view else { return try await list(connection) }
            guard let key else { return try await detail(view, connection) }
            guard !key.isEmpty else { throw NodeError("unknown-entity", "no event without a key is in any view") }
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

    private func list(_ connection: Connection) async throws {
        let answer = try await connection.ask("GET", "/v1/features") { node in try node.featureList(search: "") }
        if common.json { return Terminal.print(answer) }
        func cell(_ item: JSON, _ member: String) -> String { Terminal.cell(item[member] ?? .null) }
        let views = (answer["views"]?.array ?? []).map { view in
            let names = (view["features"]?.array ?? []).compactMap { $0["name"]?.string }
            return [
                "\(cell(view, "name"))@\(cell(view, "version"))", cell(view, "topic"), cell(view, "key"),
                names.joined(separator: ", "), cell(view, "owner"),
            ]
        }
        let derived = (answer["derived"]?.array ?? []).map { view in
            let names = (view["features"]?.array ?? []).compactMap(\.string)
            return [
                "\(cell(view, "name"))@\(cell(view, "version"))", "derived", "", names.joined(separator: ", "),
                cell(view, "owner"),
            ]
        }
        Terminal.table(["view", "topic", "key", "features", "owner"], views + derived)
        for service in answer["services"]?.array ?? [] {
            let names = (service["features"]?.array ?? []).compactMap(\.string)
            print("service \(cell(service, "name"))@\(cell(service, "version")): \(names.joined(separator: ", "))")
        }
    }

    private func detail(_ view: String, _ connection: Connection) async throws {
        let answer = try await connection.ask("GET", "/v1/features/\(Connection.escape(view))") { node in
            try node.viewDetail(view)
        }
        if common.json { return Terminal.print(answer) }
        func cell(_ item: JSON?, _ member: String) -> String { Terminal.cell(item?[member] ?? .null) }
        print(
            "\(cell(answer, "name"))@\(cell(answer, "version")), \(answer["state"]?.string ?? "derived")\(answer["description"]?.string.map { $0.isEmpty ? "" : ": \($0)" } ?? "")"
        )
        Terminal.table(
            ["feature", "function", "window s", "missing", "mean", "min", "max"],
            (answer["features"]?.array ?? []).map { feature in
                let sample = feature["sample"]
                return [cell(feature, "name"), cell(feature, "function"), cell(feature, "windowSeconds")]
                    + ["missingShare", "mean", "min", "max"].map { cell(sample, $0) }
            })
        for (kind, names) in JSON.sorted(answer["readBy"]?.object ?? [:]) {
            let list = (names.array ?? []).compactMap(\.string)
            if !list.isEmpty { print("\(kind): \(list.joined(separator: ", "))") }
        }
        guard let consistency = answer["consistency"], consistency != .null else { return }
        print(
            "compared with the log: \(cell(consistency, "compared")) vectors, \(cell(consistency, "mismatched")) differ, \(cell(consistency, "missing")) missing, \(cell(consistency, "extra")) extra; newest event \(cell(answer, "newestEvent"))"
        )
    }
}
