import Base
import Catalog
import Datasets
import EventLog
import Features
import Foundation
import Node
import RecordFormat
import Testing

/// Datasets through a node: rows, versions, what differs, files.
@Suite struct DatasetNodeTests {
    private static let workspace = """
        kind: Topic
        name: prices
        ---
        kind: Topic
        name: sales
        partitions: 2
        personal: {subject: data.customer, fields: [data.email]}
        schema: {type: object, properties: {pieces: {type: integer}}}
        ---
        kind: FeatureView
        name: price
        topic: prices
        key: data.item
        aggregates:
          - {name: n, function: count, window: 1h}
          - {name: mean, function: mean, of: data.price, window: 1h}
        latest: {price: data.price, colour: data.colour}
        ---
        kind: FeatureService
        name: shop
        features: [price]
        """

    private let scratch: ScratchDirectory
    private let settings: NodeConfiguration
    /// A moment of the past, in milliseconds.
    private static let start = Instant("2024-01-01T00:00:00Z")?.milliseconds ?? 0

    init() throws {
        scratch = try ScratchDirectory()
        var settings = NodeConfiguration(
            dataDirectory: scratch.path + "/data", platformTopics: projectDirectory + "/Topics")
        settings.workspace = scratch.path + "/workspace"
        self.settings = settings
        try FileManager.default.createDirectory(atPath: scratch.path + "/workspace", withIntermediateDirectories: true)
        try Data(Self.workspace.utf8).write(to: URL(filePath: scratch.path + "/workspace/w.yaml"))
    }

    private func publish(_ node: Node, _ topic: String, _ id: String, _ seconds: Int64, _ data: String) async throws {
        let event = NewEvent(
            id: id, source: "s", type: "t", time: Instant(milliseconds: Self.start + seconds * 1000),
            key: [UInt8](id.utf8), data: [UInt8](data.utf8))
        let verdict = try await node.gateway.publish([(topic, event)], principal: "p").first
        guard case .accepted? = verdict else { throw NodeError("test", "\(String(describing: verdict))") }
    }

    /// Prices and sales in the order in which they come; the price of 90 s comes when the sale of 100 s was made already.
    private func fill(_ node: Node) async throws {
        try await publish(node, "prices", "p1", 10, #"{"item":"a","price":10,"colour":"red"}"#)
        try await publish(node, "prices", "p2", 50, #"{"item":"a","price":20,"colour":"blue"}"#)
        try await publish(node, "sales", "s1", 50, #"{"item":"a","pieces":1,"customer":"c","email":"x@y","sold":true}"#)
        try await publish(node, "sales", "s2", 100, #"{"item":"a","pieces":2,"sold":false,"tags":[1]}"#)
        try await publish(node, "prices", "p3", 90, #"{"item":"a","price":60}"#)
        try await publish(node, "sales", "s3", 120, #"{"item":"a","pieces":3,"sold":true}"#)
        try await publish(node, "sales", "s4", 120, #"{"item":"b","pieces":4,"sold":true}"#)
    }

    private func request(_ more: String) throws -> JSON {
        try JSON(parsing: [UInt8](#"{"name":"d","service":"shop","labels":"sales"\#(more)}"#.utf8))
    }

    private func rows(_ node: Node, _ reference: String) throws -> [[String]] {
        let path = scratch.path + "/rows-\(UUID().uuidString).csv"
        _ = try node.exportDataset(reference, format: "csv", to: path)
        let text = String(decoding: try Data(contentsOf: URL(filePath: path)), as: UTF8.self)
        return text.split(separator: "\r\n").map {
            $0.split(separator: ",", omittingEmptySubsequences: false).map(String.init)
        }
    }

    @Test func rowsKnowWhatWasKnown() async throws {
        let node = try Node(settings)
        defer { node.stop() }
        try await fill(node)
        let made = try node.createDataset(try request(""))
        let manifest = try #require(made["dataset"].flatMap { DatasetManifest($0) })
        #expect(manifest.rows == 4 && manifest.definitions == ["service shop@1", "view price@1"], "\(made)")
        // Neither the sealed address nor a list becomes a column.
        let columns = manifest.columns.map { "\($0.name) \($0.kind.rawValue)" }
        #expect(
            columns == [
                "event_id text", "event_time moment", "item text", "customer text", "pieces integer", "sold flag",
                "price__n double", "price__mean double", "price__colour text", "price__price double",
            ], "\(columns)")
        #expect(manifest.notices.contains { $0.contains("tags") }, "\(manifest.notices)")
        let known = try rows(node, "d@1").map { Array($0.suffix(4)) }
        #expect(
            known[1...] == [
                ["2", "15", "blue", "20"], ["2", "15", "blue", "20"], ["", "", "", ""], ["3", "30", "", "60"],
            ], "\(known)")
        // By event time alone the late price counts.
        _ = try node.createDataset(try request(#","eventTimeOnly":true"#))
        #expect(try rows(node, "d@2")[2].suffix(4) == ["3", "30", "", "60"])
        let difference = try node.datasetDifference("d@1", "d@2")
        #expect(
            difference["rows"]?["changed"]?["first"]?.text == #"["s2"]"# && difference["isSame"] == false,
            "\(difference)")
        // The same cut is the same version, and the same bits in another life.
        let again = try node.createDataset(try request(#","eventTimeOnly":true"#))
        #expect(again["isNew"] == false && again["dataset"]?["version"] == 2)
        #expect(try node.verifyDataset("d")["verdict"] == "INTACT")
        // From is taken, to is not.
        let part = try node.createDataset(try request(#","from":"2024-01-01T00:01:40Z","to":"2024-01-01T00:02:00Z""#))
        #expect(part["dataset"]?["rows"] == 1 && part["dataset"]?["version"] == 3)
        let split = try node.createDataset(try request(#","split":"time:2024-01-01T00:01:40Z","fields":["sold"]"#))
        let balance = split["dataset"]?["balance"]?["sold"]
        #expect(
            balance?["train"]?.text == #"{"true":1}"# && balance?["test"]?.text == #"{"false":1,"true":2}"#, "\(split)")
        for (more, code) in [
            (#","fields":["email"]"#, "personal-field"), (#","fields":["solt"]"#, "unknown-field"),
            (#","from":"2024-01-02T00:00:00Z","to":"2024-01-01T00:00:00Z""#, "bad-request"),
            (#","labels":"nothing""#, "unknown-topic"), (#","service":"x""#, "unknown-service"),
            (#","split":"group:x:0.5,0.5""#, "bad-split"), (#","name":"a/b""#, "bad-name"),
            (#","odd":1"#, "bad-request"),
            (#","labels":null,"entities":{"event_timestamp":["2024-01-01T00:00:00Z"]}"#, "missing-entity"),
            (#","features":["price:x"]"#, "unknown-feature"),
        ] {
            let asked =
                try JSON(parsing: [UInt8](#"{"name":"d","service":"shop","labels":"sales"}"#.utf8)).object ?? [:]
            let others = try JSON(parsing: [UInt8]("{\(more.dropFirst())}".utf8)).object ?? [:]
            #expect(errorCode { _ = try node.createDataset(.object(asked.merging(others) { $1 })) } == code, "\(more)")
        }
        #expect(
            errorCode { _ = try node.dataset("e") } == "unknown-dataset"
                && errorCode { _ = try node.dataset("d@9") } == "unknown-dataset")
        #expect(try node.pinDataset("d@1")["pin"] == "dataset:d@1" && node.log.pins.map(\.name) == ["dataset:d@1"])
    }

    /// Members that look the same, ids beyond a double, what is called as the split: told, and nothing moves.
    @Test func oddLabelsAreTaken() async throws {
        let node = try Node(settings)
        defer { node.stop() }
        try await publish(node, "prices", "p1", 10, #"{"item":1234567890123456789,"price":10}"#)
        try await publish(
            node, "sales", "s1", 50, #"{"item":1234567890123456789,"\u00e9":1,"e\u0301":2,"big":9007199254740993}"#)
        try await publish(node, "sales", "s2", 60, #"{"item":1234567890123456788,"e\u0301":3,"split":"x"}"#)
        let made = try node.createDataset(try request(""))
        #expect(made["dataset"]?["notices"]?.text.contains("1 members stand twice") == true, "\(made)")
        let found = try rows(node, "d")
        #expect(
            found[0][3...5] == ["big", "split", "é"]
                && found[1][2...] == ["1234567890123456789", "9007199254740993", "", "1", "1", "10", "", "10"]
                && found[2][2...] == ["1234567890123456788", "", "x", "3", "", "", "", ""], "\(found)")
        #expect(
            errorCode { _ = try node.createDataset(try request(#","split":"random:0.5,0.5""#)) } == "name-collision")
    }

    @Test func rowsMayBeGiven() async throws {
        let node = try Node(settings)
        try await fill(node)
        let asked = try JSON(
            parsing: [UInt8](
                #"{"name":"g","features":["price:price"],"entities":{"item":["a","a","z"],"event_timestamp":["2024-01-01T00:00:20Z","2024-01-01 00:05:00","2024-01-01T00:05:00Z"],"y":[1.5,2,null]}}"#
                    .utf8))
        let made = try node.createDataset(asked)
        #expect(
            try rows(node, "g").dropFirst() == [
                ["row-1", "2024-01-01T00:00:20Z", "a", "1.5", "10"], ["row-2", "2024-01-01T00:05:00Z", "a", "2", "60"],
                ["row-3", "2024-01-01T00:05:00Z", "z", "", ""],
            ], "\(made)")
        node.stop()
        // In another life, what was said is there.
        let next = try Node(settings)
        defer { next.stop() }
        #expect(try next.createDataset(asked)["dataset"]?["digest"] == made["dataset"]?["digest"])
        #expect(try next.datasetList()["datasets"]?.array?.count == 1)
    }

    /// A version goes with what only it was made of; its number is not used again.
    @Test func versionsMayGo() async throws {
        let node = try Node(settings)
        let folder = scratch.path + "/media"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        var random = SeededRandom(seed: 8)
        let noise = (0..<3).map { _ in Data((0..<400_000).map { _ in UInt8.random(in: 0...255, using: &random) }) }
        try noise[0].write(to: URL(filePath: folder + "/stays"))
        try noise[1].write(to: URL(filePath: folder + "/changes"))
        _ = try node.addFiles("media", directory: folder)
        try noise[2].write(to: URL(filePath: folder + "/changes"))
        _ = try node.addFiles("media", directory: folder)
        try await fill(node)
        _ = try node.createDataset(try request(""))
        _ = try node.createDataset(try request(#","eventTimeOnly":true"#))
        let digest = try node.dataset("d@2")["digest"]
        for (reference, code) in [("d", "bad-name"), ("d@7", "unknown-dataset"), ("e@1", "unknown-dataset")] {
            #expect(errorCode { _ = try node.removeDataset(reference) } == code, "\(reference)")
        }
        _ = try node.pinDataset("d@2")
        #expect(errorCode { _ = try node.removeDataset("d@2") } == "pinned")
        _ = try node.unpin("dataset:d@2")
        // A third of it stays: it is written again, and nothing else.
        #expect(try node.removeDataset("media@2")["freed"]?.int == 0, "two thirds are in media@1")
        let freed = try node.removeDataset("media@1")["freed"]?.int ?? 0
        #expect((1_190_000..<1_250_000).contains(freed), "\(freed)")
        #expect(errorCode { _ = try node.dataset("media") } == "unknown-dataset")
        _ = try node.addFiles("media", directory: folder)
        _ = try node.removeDataset("d@2")
        node.stop()
        let next = try Node(settings)
        defer { next.stop() }
        let list = try next.datasetList()["datasets"]?.array ?? []
        #expect(list.map { "\($0["name"]?.string ?? "")@\($0["version"]?.int ?? 0)" } == ["d@1", "media@3"])
        for reference in ["d", "media"] { #expect(try next.verifyDataset(reference)["verdict"] == "INTACT") }
        let again = try next.createDataset(try request(#","eventTimeOnly":true"#))["dataset"]
        #expect(again?["version"] == 3 && again?["digest"] == digest)
        #expect(try next.verifyDataset("d@3")["verdict"] == "INTACT")
    }

    @Test func filesAreMembers() throws {
        let node = try Node(settings)
        defer { node.stop() }
        let folder = scratch.path + "/pictures"
        try FileManager.default.createDirectory(atPath: folder + "/deep/er", withIntermediateDirectories: true)
        var random = SeededRandom(seed: 4)
        func noise(_ count: Int) -> Data { Data((0..<count).map { _ in UInt8.random(in: 0...255, using: &random) }) }
        var files = ["a.png": noise(300_000), "deep/b.wav": noise(900_000), "deep/er/empty": Data()]
        files["twin.png"] = files["a.png"]
        func write() throws {
            for (name, data) in files { try data.write(to: URL(filePath: folder + "/" + name)) }
        }
        try write()
        try FileManager.default.createSymbolicLink(atPath: folder + "/link", withDestinationPath: "/etc/passwd")
        let first = try node.addFiles("media", directory: folder)
        #expect(
            first["dataset"]?["rows"] == 4 && first["dataset"]?["notices"]?.text.contains("link") == true, "\(first)")
        let store = scratch.path + "/data/datasets/00000000.pack"
        let size = { try FileManager.default.attributesOfItem(atPath: store)[.size] as? Int ?? 0 }
        let before = try size()
        #expect(before < 1_260_000, "twins are kept once: \(before)")
        files["deep/b.wav"]?.replaceSubrange(500_000..<500_010, with: [UInt8](repeating: 1, count: 10))
        files["new"] = Data("text".utf8)
        try write()
        _ = try node.addFiles("media", directory: folder)
        #expect(try size() - before < 300_000)
        let rows = try node.datasetDifference("media@1", "media@2")["rows"]
        #expect(
            rows?["added"]?["first"]?.text == #"["new"]"# && rows?["changed"]?["first"]?.text == #"["deep/b.wav"]"#,
            "\(rows ?? .null)")
        let out = scratch.path + "/out"
        _ = try node.exportDataset("media@2", format: "files", to: out)
        for (name, data) in files { #expect(try Data(contentsOf: URL(filePath: out + "/" + name)) == data, "\(name)") }
        #expect(errorCode { _ = try node.exportDataset("media", format: "files", to: out) } == "not-empty")
        #expect(try node.verifyDataset("media@1")["verdict"] == "INTACT")
        var bytes = try Data(contentsOf: URL(filePath: store))
        bytes[200_000] ^= 1
        try bytes.write(to: URL(filePath: store))
        #expect(errorCode { _ = try node.verifyDataset("media@1") } == "rot")
        // What is taken again is whole again.
        _ = try node.addFiles("media", directory: folder)
        #expect(try node.verifyDataset("media@2")["verdict"] == "INTACT")
        #expect(
            errorCode {
                _ = try node.createDataset(
                    try request("").object.map { .object($0.merging(["name": "media"]) { $1 }) } ?? .null)
            }
                == "wrong-kind")
    }

    /// Where there is no log yet, everything is checked on its own, and mistakes are named where they are.
    @Test(arguments: [
        ("", "in force from the first start"), ("---\n{kind: Topic, name: headrace.mine}", "reserved-name"),
        ("---\n{kind: Topic, name: headrace.datasets}", "reserved-name"),
        ("---\n{kind: Entity, name: my thing}", "bad-name"),
        ("---\nkind: Entity\nname: a\n  owner: b\n", "w.yaml:25"),
        (
            "---\n{kind: FeatureView, name: v, topic: prices, key: data.item, ttl: 30min, latest: {x: data.x}}",
            "not '30min'"
        ),
    ]) func plansWithoutALog(more: String, answer: String) throws {
        let folder = scratch.path + "/alone"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        try Data((Self.workspace + "\n" + more).utf8).write(to: URL(filePath: folder + "/w.yaml"))
        func text() -> String {
            do {
                let definitions = try Workspace.read(directory: folder).map { definition in
                    JSON.object([
                        "kind": .string(definition.kind), "name": .string(definition.name), "body": definition.body,
                        "place": .string(definition.place),
                    ])
                }
                return try Node.plan(
                    .object(["definitions": .array(definitions)]), platformTopics: projectDirectory + "/Topics"
                ).text
            } catch {
                return "\(error)"
            }
        }
        #expect(text().contains(answer), "\(text())")
    }

    /// A plan says what would come into force, what would change and what is refused, and changes nothing.
    @Test func plansSayWhatWouldHappen() async throws {
        let node = try Node(settings)
        defer { node.stop() }
        try await fill(node)
        func plan(_ text: String) throws -> [JSON] {
            let folder = scratch.path + "/plan"
            try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
            try Data(text.utf8).write(to: URL(filePath: folder + "/w.yaml"))
            return try node.plan(try Workspace.read(directory: folder))["changes"]?.array ?? []
        }
        func effects(_ changes: [JSON]) -> [String] {
            changes.map { "\($0["definition"]?.string ?? "") \($0["effect"]?.string ?? "") \($0["to"]?.int ?? 0)" }
        }
        #expect(try plan(Self.workspace).allSatisfy { $0["effect"] == "none" })
        let fewer = Self.workspace.replacingOccurrences(of: "[price]", with: #"["price:price"]"#)
        let service = try plan(fewer + "\n---\n{kind: Topic, name: fresh}\n---\n{kind: Entity, name: thing}\n")
        #expect(
            effects(service.filter { $0["effect"] != "none" }) == [
                "FeatureService/shop in force at once 2", "Topic/fresh in force at once 1",
                "Entity/thing in force at once 1",
            ], "\(service)")
        let difference = service.first { $0["definition"] == "FeatureService/shop" }?["differences"]
        #expect(difference?.text == #"["+ features price:price","- features price"]"#)
        let view = try plan(Self.workspace.replacingOccurrences(of: "colour: data.colour", with: "colour: data.tint"))
        let filled = view.first { $0["definition"] == "FeatureView/price" }
        #expect(
            filled?["effect"] == "backfilled from the log, then live" && filled?["to"] == 2
                && filled?["differences"]?.text == #"["~ latest"]"#, "\(view)")
        let topic = try plan(Self.workspace.replacingOccurrences(of: "partitions: 2", with: "partitions: 3"))
        let refused = topic.first { $0["effect"] == "refused" }
        #expect(refused?["definition"] == "Topic/sales" && refused?["to"] == 1, "\(topic)")
        #expect(refused?["reason"]?.string?.contains("w.yaml") == true)
        // What a service reads cannot go.
        let gone = Self.workspace.replacingOccurrences(
            of: "name: shop\nfeatures: [price]", with: "name: shop\nfeatures: [\"price:x\"]")
        #expect(errorCode { _ = try plan(gone) } == "unknown-feature")
        #expect(
            try node.createDataset(try request(""))["dataset"]?["definitions"]?.text
                == #"["service shop@1","view price@1"]"#)
        try Data(fewer.utf8).write(to: URL(filePath: scratch.path + "/workspace/w.yaml"))
        _ = try node.apply(directory: scratch.path + "/workspace")
        let next = try node.createDataset(try request(""))["dataset"]
        #expect(next?["definitions"]?.text == #"["service shop@2","view price@1"]"# && next?["version"] == 2)
    }
}
