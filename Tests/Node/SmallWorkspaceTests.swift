import Base
import EventLog
import Features
import Foundation
import GRDB
import Node
import Streams
import Testing

/// A node in this process, over a few rows of CSV.
@Suite struct SmallWorkspaceTests {
    private static let workspace = """
        kind: Topic
        name: sales
        ---
        kind: FeatureView
        name: item
        topic: sales
        key: data.item
        aggregates:
          - {name: price_median, function: quantile, q: 0.5, of: data.price, window: 1d}
          - {name: colours, function: distinct, of: data.colour, window: 1d}
        latest: {colour: data.colour, price: data.price}
        ---
        kind: FeatureView
        name: odd
        topic: sales
        key: data.item
        aggregates:
          - {name: mean, function: mean, of: data.colour, window: 1d}
        """

    private static let questions = """
        ---
        kind: Question
        name: sells
        topic: sales
        id: string(data.at)
        askAt: timestamp(data.at) + duration('1m')
        features:
          - {name: colour, view: item, key: data.item, encode: category}
          - {name: price, view: item, key: data.item}
        ---
        kind: Question
        name: fails
        topic: sales
        id: string(data.at)
        askAt: timestamp(data.at) + duration('1m')
        features:
          - {name: colour, view: item, key: data.item}
        """

    private static let rows = """
        at,item,price,colour
        2024-01-01T10:00:00Z,a,10,red
        2024-01-01T10:10:00Z,a,20,blue
        2024-01-01T10:20:00Z,b,7,red
        2024-01-01T10:30:00Z,a,40,NA
        2024-01-01T10:40:00Z,a,80,blue
        """

    private static let connector = """
        {"name":"s","config":{"connector.class":"CsvHistorySource","directory":"DIR","missing":"NA","tables":"t",
        "tables.t.file":"t.csv","tables.t.columns":"at:timestamp,item,price:double,colour","events":"e",
        "events.e.table":"t","events.e.topic":"sales","events.e.type":"sold","events.e.time":"at",
        "events.e.id":"string(at)","events.e.key":"item",
        "events.e.data":"{'at': string(at), 'item': item, 'price': price, 'colour': colour}"}}
        """

    private let scratch: ScratchDirectory
    private let settings: NodeConfiguration

    init() throws {
        scratch = try ScratchDirectory()
        var settings = NodeConfiguration(
            dataDirectory: scratch.path + "/data", platformTopics: FileManager.default.currentDirectoryPath + "/Topics")
        settings.workspace = scratch.path + "/workspace"
        settings.connectors = [scratch.path + "/c.json"]
        self.settings = settings
        try FileManager.default.createDirectory(
            atPath: scratch.path + "/workspace", withIntermediateDirectories: true)
        try write("workspace/w.yaml", Self.workspace)
        try write("t.csv", Self.rows)
        try write("c.json", Self.connector.replacingOccurrences(of: "DIR", with: scratch.path))
    }

    private func write(_ name: String, _ text: String) throws {
        try Data(text.utf8).write(to: URL(filePath: scratch.path + "/" + name))
    }

    private func played() async throws -> Node {
        let node = try Node(settings)
        try node.start()
        for _ in 0..<400 where !node.isSettled { try await Task.sleep(for: .milliseconds(25)) }
        #expect(node.isSettled && node.failures.isEmpty, "\(node.failures)")
        return node
    }

    /// Texts are served and numbered; where a number is wanted they are a mistake that is told. A replay compares the state
    /// in service, running or stored, and finds a value that was changed by hand.
    @Test(arguments: [false, true]) func textsAreFeaturesAndStateIsCompared(asks: Bool) async throws {
        if asks { try write("workspace/w.yaml", Self.workspace + "\n" + Self.questions) }
        let node = try await played()
        #expect(node.connectors.map(\.status.played) == [5])
        let a = try await node.features(view: "item", key: "a")["features"]
        #expect(a?["colour"] == "blue" && a?["price"] == .double(80) && a?["colours"] == .double(2), "\(a ?? .null)")
        let median = a?["price_median"]?.double ?? 0
        #expect(abs(median - 30) <= 30 / 256.0, "\(median)")
        await #expect(throws: FeaturesError.self) { try await node.features(view: "odd", key: "b") }
        let letters = try node.log.offsets(TopicPartition("headrace.unfolded", 0)).upperBound
        #expect(letters == (asks ? 4 + 3 : 4), "four rows have a colour; the last question is not due")
        if asks {
            var vectors: [String] = []
            try node.log.forEachEvent(TopicPartition("questions.asked", 0)) { event in
                vectors.append(try JSON(parsing: event.data ?? [])["vector"]?.text ?? "")
                return true
            }
            // Red is 0 and blue is 1, in the order in which they were asked with; the missing one is missing.
            #expect(Array(vectors.prefix(3)) == ["[0,10]", "[1,20]", "[0,7]"], "\(vectors)")
        }
        // As it was: 10:20 is another key's, and 10:30 has no colour.
        for (time, colour, median, colours) in [
            ("10:00", "\"red\"", 10.0, 1), ("10:09", "\"red\"", 10, 1), ("10:10", "\"blue\"", 15, 2),
            ("10:29", "\"blue\"", 15, 2), ("10:30", "null", 20, 2), ("10:40", "\"blue\"", 30, 2),
        ] {
            let past = try node.pastFeatures(view: "item", key: "a", asOf: "2024-01-01T\(time):00Z")["features"]
            let found = past?["price_median"]?.double ?? 0
            #expect(
                past?["colour"]?.text == colour && past?["colours"]?.int == Int64(colours), "\(time) \(past ?? .null)")
            #expect(abs(found - median) <= median / 256, "\(time) \(found)")
        }
        #expect(try node.pastFeatures(view: "item", key: "a", asOf: nil)["features"] == a)
        #expect(throws: FeaturesError.self) {
            try node.pastFeatures(view: "item", key: "a", asOf: "2024-01-01T09:59:59.999Z")
        }
        let described = try node.topology()
        let outputs = (described["stages"]?.array ?? []).flatMap { $0["outputs"]?.array ?? [] }.compactMap(\.string)
        #expect(
            Set(outputs) == WorkspaceTopology.derived && described["mermaid"]?.text.contains("questions.asked") == true)
        let live = try await BlockingPool(name: "replay", threads: 1, limit: 1).run {
            try node.replay(to: nil, processor: nil)
        }
        #expect(live["verdict"] == "EXACT" && live["storesCompared"]?.int ?? 0 > 3, "\(live)")
        node.stop()

        var stopped = settings
        (stopped.workspace, stopped.connectors) = (nil, [])
        func replay() throws -> JSON {
            let node = try Node(stopped)
            defer { node.stop() }
            return try node.replay(to: nil, processor: nil)
        }
        let stored = try replay()
        #expect(stored["verdict"] == "EXACT" && stored["storesCompared"] == live["storesCompared"], "\(stored)")
        let state = try DatabaseQueue(path: settings.stateFile)
        try await state.write { database in
            let first = try Int64.fetchOne(
                database, sql: "SELECT firstChunk FROM runs WHERE store = 'features.item' AND obsolete = 0")
            let data: Data? = try Data.fetchOne(
                database, sql: "SELECT data FROM chunks WHERE id = ?", arguments: [first])
            var chunk = try #require(data)
            let place = try #require(chunk.range(of: Data("blue".utf8)))
            chunk.replaceSubrange(place, with: Data("grey".utf8))
            // Its checksum too: this is no damage.
            var bytes = [UInt8](chunk)
            StateChunk.seal(&bytes, id: try #require(first))
            try database.execute(sql: "UPDATE chunks SET data = ? WHERE id = ?", arguments: [Data(bytes), first])
        }
        try state.close()
        let forged = try replay()
        #expect(
            forged["verdict"] == "DIVERGED" && forged["reason"]?.text.contains("features.item") == true, "\(forged)")
    }

    /// Mistakes are told with file and line, all of a kind at once, before anything is made.
    @Test(
        arguments: [
            (
                "workspace/w.yaml", "function: mean", "function: men",
                ["w.yaml:18: FeatureView/odd, aggregates, item 1: there is no function 'men'"]
            ),
            ("workspace/w.yaml", "latest: {", "latst: {", ["w.yaml:11: FeatureView/item: unknown key 'latst'"]),
            (
                "workspace/w.yaml", "key: data.item", "kee: data.item",
                [
                    "2 mistakes:\nw.yaml:7: FeatureView/item: 'key' is missing; it is a CEL expression; is 'kee' meant for it?",
                    "\nw.yaml:16: FeatureView/odd: 'key' is missing",
                ]
            ),
            (
                "c.json", "price:double,colour", "price:double,color",
                ["'tables.t.columns': the file t.csv has no column 'color'; it has at, item, price, colour"]
            ),
            ("c.json", "price:double", "price:doubel", ["there is no type 'doubel'"]),
            ("c.json", "CsvHistorySource", "CsvSource", ["the only connector class is CsvHistorySource"]),
        ] as [(String, String, String, [String])])
    func mistakesLeaveNothingBehind(file: String, old: String, new: String, expected: [String]) throws {
        let path = scratch.path + "/" + file
        let text = try String(contentsOfFile: path, encoding: .utf8)
        try #require(text.contains(old))
        try write(file, text.replacingOccurrences(of: old, with: new))
        var message = ""
        do { _ = try Node(settings) } catch { message = "\(error)" }
        #expect(expected.allSatisfy { message.contains($0) }, "\(message)")
        #expect(!FileManager.default.fileExists(atPath: settings.dataDirectory))
    }
}
