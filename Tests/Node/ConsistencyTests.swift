import Base
import Catalog
import EventLog
import Features
import Foundation
import Node
import RecordFormat
import Testing

/// What is served is derived again from the log: nothing differs where all is well, and what differs is told.
@Suite struct ConsistencyTests {
    private static let workspace = """
        kind: Topic
        name: prices
        partitions: 2
        ---
        kind: Topic
        name: visits
        lateness: 20s
        ---
        kind: FeatureView
        name: price
        topic: prices
        key: data.item
        ttl: 10h
        lateness: 25s
        filter: data.price != 13.0
        aggregates:
          - {name: n, function: count, window: 10m}
          - {name: mean, function: mean, of: data.price, window: 10m}
          - {name: median, function: quantile, q: 0.5, of: data.price, window: 30m}
          - {name: kinds, function: distinct, of: data.colour, window: 1h}
          - {name: since, function: secondsSince}
        latest: {price: data.price, colour: data.colour}
        ---
        kind: FeatureView
        name: visit
        topic: visits
        key: data.item
        aggregates: [{name: n, function: count, window: 5m}, {name: dev, function: stddev, of: data.price, window: 5m}]
        """
    private static let start = Instant("2024-01-01T00:00:00Z")?.milliseconds ?? 0

    private let scratch: ScratchDirectory

    init() throws {
        scratch = try ScratchDirectory()
        try FileManager.default.createDirectory(atPath: scratch.path + "/workspace", withIntermediateDirectories: true)
        try Data(Self.workspace.utf8).write(to: URL(filePath: scratch.path + "/workspace/w.yaml"))
    }

    private func open(_ name: String) throws -> Node {
        var settings = NodeConfiguration(
            dataDirectory: scratch.path + "/" + name, platformTopics: projectDirectory + "/Topics")
        settings.workspace = scratch.path + "/workspace"
        settings.checkpointSeconds = 0.05
        let node = try Node(settings)
        try node.start()
        return node
    }

    /// Events of both topics, many out of order and some late.
    private func publish(_ node: Node, _ numbers: Range<Int>, seed: UInt64) async throws {
        var random = SeededRandom(seed: seed)
        for begin in stride(from: numbers.lowerBound, to: numbers.upperBound, by: 200) {
            let events = (begin..<begin + 200).map { number -> (String, NewEvent) in
                let back = Int.random(in: 0...9, using: &random) == 0 ? Int.random(in: 0...40, using: &random) : 0
                let time = Instant(milliseconds: Self.start + Int64(number - back) * 1000)
                let item = "i\(Int.random(in: 0..<250, using: &random))"
                let colour = ["\"red\"", "\"blue\"", "null"][Int.random(in: 0..<3, using: &random)]
                let data =
                    #"{"item":"\#(item)","price":\#(Int.random(in: 10...16, using: &random)),"colour":\#(colour)}"#
                return (
                    number % 3 == 0 ? "visits" : "prices",
                    NewEvent(
                        id: "\(number)", source: "s", type: "t", time: time, key: [UInt8](item.utf8),
                        data: [UInt8](data.utf8))
                )
            }
            for verdict in try await node.gateway.publish(events, principal: "p") {
                guard case .accepted = verdict else { throw NodeError("test", "\(verdict)") }
            }
        }
    }

    /// A view that comes while history runs.
    private func apply(_ node: Node) throws {
        let folder = scratch.path + "/more"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        let view =
            "{kind: FeatureView, name: later, topic: prices, key: data.item, aggregates: [{name: total, function: sum, of: data.price, window: 90d}]}"
        try Data(view.utf8).write(to: URL(filePath: folder + "/w.yaml"))
        _ = try node.apply(directory: folder)
    }

    private func wait(_ node: Node, _ view: String, until isDone: (JSON) -> Bool) async throws -> JSON {
        var found = JSON.null
        for _ in 0..<1000 {
            found = try node.viewDetail(view)
            if let consistency = found["consistency"], isDone(consistency) { return found }
            try await Task.sleep(nanoseconds: 20_000_000)
        }
        Issue.record("\(view): \(found["consistency"] ?? .null)")
        return found
    }

    private static func faults(_ report: JSON) -> Int64 {
        ["mismatched", "missing", "extra"].reduce(0) { $0 + (report[$1]?.int ?? 0) }
    }

    @Test func nothingDiffersUntilSomethingIsWrong() async throws {
        let node = try open("a")
        for part in 0..<10 {
            try await publish(node, part * 600..<part * 600 + 600, seed: UInt64(part))
            let keys = (0..<70).map { "i\($0 * 5)" } + ["nobody"]
            let answer = try await node.onlineFeatures(
                FeatureQuestion(service: nil, features: ["price", "visit:n"], entities: [("item", keys)]))
            #expect(answer.columns.count == 8)
        }
        for view in ["price", "visit"] {
            let found = try await wait(node, view) {
                $0["behind"] == 0 && $0["compared"]?.int ?? 0 >= 300 && $0["rounds"]?.int ?? 0 >= 3
            }
            let report = try #require(found["consistency"])
            #expect(Self.faults(report) == 0 && report["keys"] == 100, "\(report)")
            #expect(found["usage"]?["questions"] == 10 && found["usage"]?["rows"] == 710, "\(found)")
            #expect(found["freshnessSeconds"]?.double ?? -1 >= 0 && found["state"] == "live")
            let sample = found["features"]?.array?.first?["sample"]
            #expect(sample?["keys"]?.int ?? 0 > 0 && sample?["missingShare"]?.double ?? 1 < 0.5, "\(found)")
        }
        let metrics = try node.metrics()
        #expect(
            metrics.contains("headrace_features_mismatched_total{view=\"price\"} 0")
                && metrics.contains("headrace_feature_missing_ratio{view=\"price\",feature=\"colour\"}"))
        try apply(node)
        let later = try await wait(node, "later") { $0["behind"] == 0 && $0["compared"]?.int ?? 0 >= 100 }
        #expect(Self.faults(later["consistency"] ?? .null) == 0 && later["state"] == "live", "\(later)")
        node.stop()
        // Another node's state, as a disk or a hand might leave it.
        let other = try open("b")
        try await publish(other, 0..<1200, seed: 77)
        try apply(other)
        _ = try await wait(other, "later") { $0["behind"] == 0 && $0["compared"]?.int ?? 0 >= 100 }
        other.stop()
        for suffix in ["", "-wal"] {
            let name = "/views/later@1.sqlite" + suffix
            try? FileManager.default.removeItem(atPath: scratch.path + "/a" + name)
            if FileManager.default.fileExists(atPath: scratch.path + "/b" + name) {
                try FileManager.default.copyItem(
                    atPath: scratch.path + "/b" + name, toPath: scratch.path + "/a" + name)
            }
        }
        let wrong = try open("a")
        defer { wrong.stop() }
        let found = try await wait(wrong, "later") { Self.faults($0) > 0 }
        #expect(found["consistency"]?["difference"]?["feature"] != nil, "\(found)")
        for _ in 0..<200 where !wrong.notices.contains(where: { $0.contains("'later' are not") }) {
            try await Task.sleep(nanoseconds: 20_000_000)
        }
        #expect(wrong.notices.contains { $0.contains("'later' are not what the log gives") }, "\(wrong.notices)")
        // The notice comes before the event is on disk.
        var told: [String] = []
        for _ in 0..<200 where told.isEmpty {
            try await Task.sleep(nanoseconds: 20_000_000)
            try wrong.log.forEachEvent(TopicPartition("monitors.consistency", 0)) { event in
                told.append(String(decoding: event.data ?? [], as: UTF8.self))
                return true
            }
        }
        #expect((1...2).contains(told.count) && told[0].contains("\"expected\""), "\(told)")
    }

    /// A late event counts in a view that allows for it, from then on and in every later row; in no other.
    @Test func lateEventsCountWhereTheyMay() async throws {
        let views = ["allows", "strict"].map { name in
            "{kind: FeatureView, name: \(name), topic: prices, key: data.item, \(name == "allows" ? "lateness: 30s, " : "")latest: {price: data.price}, aggregates: [{name: n, function: count, window: 1h}, {name: f, function: first, of: data.price, window: 1h}]}"
        }
        let text = ["{kind: Topic, name: prices}", "{kind: Topic, name: asks}"] + views
        try Data(text.joined(separator: "\n---\n").utf8).write(to: URL(filePath: scratch.path + "/workspace/w.yaml"))
        let node = try open("late")
        defer { node.stop() }
        func publish(_ topic: String, _ id: String, _ seconds: Double, _ data: String) async throws {
            let event = NewEvent(
                id: id, source: "s", type: "t", time: Instant(milliseconds: Self.start + Int64(seconds * 1000)),
                key: nil,
                data: [UInt8](data.utf8))
            guard case .accepted? = try await node.gateway.publish([(topic, event)], principal: "p").first else {
                throw NodeError("test", "\(id) is not taken")
            }
        }
        try await publish("prices", "1", 1000, #"{"item":"x","price":1}"#)
        try await publish("prices", "2", 1100, #"{"item":"y","price":2}"#)
        try await publish("asks", "3", 1101, #"{"item":"x"}"#)
        // Behind by less than 30 s, by more, and one that nobody can read.
        try await publish("prices", "4", 1090, #"{"item":"x","price":4}"#)
        try await publish("prices", "5", 900, #"{"item":"x","price":5}"#)
        try await publish("prices", "6", 1091, #"{"item":"x","price":"six"}"#)
        try await publish("prices", "7", 1092, #"{"item":"y","price":7}"#)
        try await publish("asks", "8", 1101, #"{"item":"x"}"#)
        for _ in 0..<500 where !(node.isSettled && node.fold.status.late == 4) {
            try await Task.sleep(for: .milliseconds(10))
        }
        #expect(node.fold.status.late == 4 && node.failures.isEmpty, "\(node.fold.status)")
        let features = ["allows", "strict"].flatMap { view in ["n", "f", "price"].map { "\(view):\($0)" } }
        let answer = try await node.onlineFeatures(
            FeatureQuestion(service: nil, features: features, entities: [("item", ["x", "y"])]))
        let values = answer.columns.map { $0.values.map { $0.isNaN ? -1 : $0 } }
        #expect(values == [[2, 2], [1, 7], [4, 2], [1, 1], [1, 2], [1, 2]], "\(values)")
        let request = #"{"name":"d","features":["allows:n","strict:n"],"labels":"asks"}"#
        let made = try node.createDataset(try JSON(parsing: [UInt8](request.utf8)))
        let path = scratch.path + "/rows.csv"
        _ = try node.exportDataset("d@1", format: "csv", to: path)
        let rows = String(decoding: try Data(contentsOf: URL(filePath: path)), as: UTF8.self)
        let counts = rows.split(separator: "\r\n").dropFirst().map {
            $0.split(separator: ",").suffix(2).joined(separator: " ")
        }
        // The first ask came before the late event.
        #expect(counts == ["1 1", "2 1"], "\(rows)")
        #expect(made["dataset"]?["notices"]?.text.contains("4 late events") == true, "\(made)")
        var letters: [String] = []
        try node.log.forEachEvent(TopicPartition("headrace.late", 0)) { event in
            let data = String(decoding: event.data ?? [], as: UTF8.self)
            letters.append(data.contains("what allows for an event so late counts it") ? "counted" : "left out")
            return true
        }
        #expect(letters.sorted() == ["counted", "counted", "counted", "left out"], "\(letters)")
        let found = try await wait(node, "allows") { $0["behind"] == 0 && $0["compared"]?.int ?? 0 >= 2 }
        #expect(Self.faults(found["consistency"] ?? .null) == 0, "\(found)")
        // Folded beside, where only another topic brought the progress: what counts is not of the future.
        let folder = scratch.path + "/beside"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        let beside = views[0].replacing("name: allows", with: "name: beside")
            .replacing("aggregates: [", with: "aggregates: [{name: since, function: secondsSince}, ")
        try Data(beside.utf8).write(to: URL(filePath: folder + "/w.yaml"))
        _ = try node.apply(directory: folder)
        try await publish("prices", "9", 1100.5, #"{"item":"z","price":9}"#)
        let last = try await wait(node, "beside") { $0["behind"] == 0 && $0["compared"]?.int ?? 0 >= 6 }
        #expect(Self.faults(last["consistency"] ?? .null) == 0, "\(last)")
        let young = try await node.onlineFeatures(
            FeatureQuestion(service: nil, features: ["beside:since", "beside:n"], entities: [("item", ["z", "x"])]))
        #expect(young.columns.map(\.values) == [[0, 10.5], [1, 2]], "\(young)")
    }
}
