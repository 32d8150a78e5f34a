import Base
import Catalog
import EventLog
import Features
import Foundation
import Node
import RecordFormat
import Testing

/// Views that come and change while history runs: filled from the log, then live, with nothing missing and nothing twice.
@Suite struct ViewFoldTests {
    private static let first = """
        kind: Topic
        name: prices
        ---
        kind: Topic
        name: visits
        partitions: 2
        ---
        {kind: Topic, name: slow, lateness: 1h}
        ---
        kind: FeatureView
        name: price
        topic: prices
        key: data.item
        aggregates: [{name: n, function: count, window: 1000d}, {name: total, function: sum, of: data.price, window: 1000d}]
        ---
        kind: Question
        name: dear
        topic: prices
        id: data.id
        askAt: data.at
        features: [{name: n, view: price, key: data.item, feature: n}]
        """
    private static let start = Instant("2024-01-01T00:00:00Z")?.milliseconds ?? 0

    private let scratch: ScratchDirectory
    private let settings: NodeConfiguration

    init() throws {
        scratch = try ScratchDirectory()
        var settings = NodeConfiguration(
            dataDirectory: scratch.path + "/data", platformTopics: projectDirectory + "/Topics")
        settings.checkpointSeconds = 0.05
        self.settings = settings
    }

    private func apply(_ node: Node, _ text: String) throws {
        let folder = scratch.path + "/workspace"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        try Data(text.utf8).write(to: URL(filePath: folder + "/w.yaml"))
        _ = try node.apply(directory: folder)
    }

    /// Events with numbers of a range, one a second.
    private func publish(
        _ node: Node, _ topic: String, _ numbers: Range<Int>, turned: Bool = false
    ) async throws {
        for begin in stride(from: numbers.lowerBound, to: numbers.upperBound, by: 500) {
            let part = begin..<min(begin + 500, numbers.upperBound)
            let events = (turned ? part.reversed() : Array(part)).map { number in
                let time = Instant(milliseconds: Self.start + Int64(number) * 1000)
                let data = #"{"id":"\#(number)","item":"\#(number % 7)","price":\#(number),"at":"\#(time)"}"#
                return (
                    topic,
                    NewEvent(
                        id: "\(topic)-\(number)", source: "s", type: "t", time: time,
                        key: [UInt8]("\(number % 7)".utf8),
                        data: [UInt8](data.utf8))
                )
            }
            for verdict in try await node.gateway.publish(events, principal: "p") {
                guard case .accepted = verdict else { throw NodeError("test", "\(verdict)") }
            }
        }
    }

    private func settle(_ node: Node) async throws {
        for _ in 0..<1000 where !node.isSettled { try await Task.sleep(nanoseconds: 20_000_000) }
        let status = try node.status()
        #expect(node.isSettled && node.failures.isEmpty, "\(status)")
    }

    /// Features of all keys, in the order of the keys, and the version that gave them.
    private func read(_ node: Node, _ feature: String, keys: Int = 7) async throws -> (
        values: [Double], version: String
    ) {
        let answer = try await node.onlineFeatures(
            FeatureQuestion(
                service: nil, features: [feature], entities: [("item", (0..<keys).map { "\($0)" })]))
        return (answer.columns[0].values, answer.versions.map { "\($0.view)@\($0.version)" }.joined(separator: " "))
    }

    private static func expected(_ count: Int, _ body: ([Int]) -> Double) -> [Double] {
        (0..<7).map { key in body((0..<count).filter { $0 % 7 == key }) }
    }

    /// A node that was never started answers of the past from the log, also of a topic in which nobody said how complete it was.
    @Test func historyThatNobodyReadIsAnswered() async throws {
        let node = try Node(settings)
        defer { node.stop() }
        try apply(node, Self.first)
        try await publish(node, "prices", 0..<10)
        try await publish(node, "visits", 0..<300, turned: true)
        try apply(
            node,
            "{kind: FeatureView, name: visit, topic: visits, key: data.item, aggregates: [{name: near, function: count, window: 100s}], latest: {last: data.price}}"
        )
        let past = try node.pastFeatures(view: "visit", key: "3", asOf: "2024-01-01T00:02:30Z")["features"]
        #expect(past?["last"]?.double == 150 && past?["near"]?.double == 15, "\(String(describing: past))")
    }

    /// A restart with another workspace is held to the same rules as `apply`.
    @Test func restartsDoNotRewriteHistory() async throws {
        var settings = settings
        settings.workspace = scratch.path + "/workspace"
        func open(_ text: String) throws -> Node {
            try FileManager.default.createDirectory(
                atPath: scratch.path + "/workspace", withIntermediateDirectories: true)
            try Data(text.utf8).write(to: URL(filePath: scratch.path + "/workspace/w.yaml"))
            return try Node(settings)
        }
        let node = try open(Self.first)
        try node.start()
        try await publish(node, "prices", 0..<700)
        try await settle(node)
        node.stop()
        for changed in [
            Self.first.replacingOccurrences(of: "partitions: 2", with: "partitions: 3"),
            Self.first.replacingOccurrences(of: "askAt: data.at", with: "askAt: timestamp(data.at)"),
            Self.first.replacingOccurrences(of: "name: prices\n", with: "name: prices\nschema: {type: object}\n"),
        ] { #expect(errorCode { try open(changed).stop() } == "in-force") }
        // Words alone may change, and a view does in its own way.
        let window = Self.first.replacingOccurrences(of: "window: 1000d", with: "window: 100s")
            .replacingOccurrences(of: "name: prices\n", with: "name: prices\ndescription: what things cost\n")
        let next = try open(window)
        defer { next.stop() }
        try next.start()
        try await settle(next)
        // The last 100 seconds of 700, (599, 699]: of each key 14 or 15.
        let expected = (0..<7).map { key in Double((600..<700).count { $0 % 7 == key }) }
        #expect(try await read(next, "price:n") == (expected, "price@2"))
        #expect(try next.replay(to: nil, processor: nil)["verdict"] == "EXACT")
    }

    @Test func viewsComeAndChangeWhileHistoryRuns() async throws {
        let node = try Node(settings)
        try apply(node, Self.first)
        try node.start()
        try await publish(node, "prices", 0..<6000)
        // An hour's lateness, which is over by the times of the others.
        try await publish(node, "slow", 0..<300, turned: true)
        // In no order of times: nobody reads it, so nothing of it is late.
        try await publish(node, "visits", 0..<300, turned: true)
        try await settle(node)
        // The same view with another feature, one more over its topic, and one over a topic that no fold has read so far.
        let second =
            Self.first.replacingOccurrences(
                of: "of: data.price, window: 1000d}]",
                with: "of: data.price, window: 1000d}, {name: most, function: max, of: data.price, window: 1000d}]")
                + """

                ---
                {kind: FeatureView, name: cents, topic: prices, key: data.item, aggregates: [{name: total, function: sum, of: data.price * 100.0, window: 1000d}]}
                ---
                {kind: FeatureView, name: visit, topic: visits, key: data.item, aggregates: [{name: n, function: count, window: 1000d}, {name: near, function: count, window: 100s}, {name: last, function: last, of: data.price}]}
                ---
                {kind: FeatureView, name: slow, topic: slow, key: data.item, aggregates: [{name: n, function: count, window: 1000d}]}
                ---
                {kind: FeatureService, name: shop, features: ["price:total", cents, visit]}
                """
        let publishing = Task { try await publish(node, "prices", 6000..<9000) }
        try apply(node, second)
        // Until the changed view has caught up, the one before it is served.
        let early = try await read(node, "price:n")
        #expect(["price@1", "price@2"].contains(early.version) && early.values.allSatisfy { $0 >= 857 }, "\(early)")
        try await publishing.value
        try await settle(node)
        func check(_ node: Node, _ count: Int, _ visits: [Int]) async throws {
            #expect(try await read(node, "price:n") == (Self.expected(count) { Double($0.count) }, "price@2"))
            #expect(
                try await read(node, "price:most").values == Self.expected(count) { Double($0.max() ?? 0) })
            #expect(
                try await read(node, "cents").values == Self.expected(count) { Double($0.reduce(0, +) * 100) })
            #expect(
                try await read(node, "visit:n").values == (0..<7).map { key in Double(visits.count { $0 % 7 == key }) })
            #expect(try await read(node, "slow").values == Self.expected(300) { Double($0.count) })
            // What was published in the wrong order stands in the right one.
            #expect(
                try await read(node, "visit:last").values
                    == (0..<7).map { key in Double(visits.filter { $0 % 7 == key }.max() ?? 0) })
            let past = try node.pastFeatures(view: "visit", key: "3", asOf: "2024-01-01T00:02:30Z")["features"]
            #expect([14, 15].contains(past?["near"]?.double), "\(String(describing: past))")
            let key = try await node.features(view: "cents", key: "3")
            let cents = try node.pastFeatures(view: "cents", key: "3", asOf: nil)
            #expect(key["features"] == cents["features"], "\(key) \(cents)")
        }
        try await check(node, 9000, Array(0..<300))
        // All of a service in one answer, from three folds.
        let answer = try await node.onlineFeatures(
            FeatureQuestion(service: "shop", features: [], entities: [("item", ["3", "none"])]))
        #expect(
            answer.columns.map { $0.statuses.map(\.rawValue) } == Array(repeating: ["PRESENT", "NOT_FOUND"], count: 5))
        #expect(answer.columns[2].values[0] == 43 && answer.columns[0].values[0] * 100 == answer.columns[1].values[0])
        // The workspace's own fold goes on with what it began with: a replay finds it again.
        #expect(
            errorCode {
                try apply(
                    node, Self.first.replacingOccurrences(of: "{name: n, function: count, window: 1000d}, ", with: ""))
            }
                == "feature-in-use")
        node.stop()
        // In another life they go on where they were; what came meanwhile comes in.
        let next = try Node(settings)
        defer { next.stop() }
        try next.start()
        try await publish(next, "prices", 9000..<9500)
        try await publish(next, "visits", 9500..<9570)
        try await settle(next)
        try await check(next, 9500, Array(0..<300) + Array(9500..<9570))
        let files = try FileManager.default.contentsOfDirectory(atPath: scratch.path + "/data/views")
        #expect(files.count { $0.hasSuffix(".sqlite") } == 4, "\(files)")
        // As it was at the beginning is as the workspace folds it.
        try apply(next, Self.first)
        #expect(try await read(next, "price:n") == (Self.expected(9500) { Double($0.count) }, "price@3"))
        let replay = try next.replay(to: nil, processor: nil)
        #expect(replay["verdict"] == "EXACT", "\(replay)")
    }

    /// What nothing reads may go, and come again; history stays what it was.
    @Test func whatNothingReadsMayGo() async throws {
        let spare = """
            \(Self.first)
            ---
            {kind: FeatureView, name: spare, topic: prices, key: data.item, aggregates: [{name: total, function: sum, of: data.price, window: 1000d}]}
            """
        let more = """
            \(spare)
            ---
            {kind: Entity, name: thing, joinKey: item}
            ---
            {kind: FeatureView, name: cents, topic: prices, key: data.item, entity: thing, aggregates: [{name: total, function: sum, of: data.price * 100.0, window: 1000d}]}
            ---
            {kind: DerivedView, name: twice, features: [{name: n, of: "cents.total * 2.0"}]}
            ---
            {kind: FeatureService, name: shop, features: [twice, "spare:total"]}
            """
        let node = try Node(settings)
        // Before anything came, what goes was never there.
        try apply(
            node,
            spare + "\n---\n{kind: FeatureView, name: early, topic: prices, key: data.item, latest: {p: data.price}}")
        #expect(try node.remove(["FeatureView/early"])["removed"]?.text == #"["FeatureView/early"]"#)
        try node.start()
        try await publish(node, "prices", 0..<700)
        try await settle(node)
        try apply(node, more)
        try await settle(node)
        let totals = Self.expected(700) { Double($0.reduce(0, +)) }
        #expect(try await read(node, "twice:n").values == totals.map { $0 * 200 })
        for (keys, code) in [
            (["FeatureView/cents"], "definition-in-use"), (["DerivedView/twice"], "definition-in-use"),
            (["Entity/thing"], "definition-in-use"), (["FeatureView/price"], "definition-in-use"),
            (["FeatureService/shop", "FeatureView/cents"], "definition-in-use"), (["Topic/visits"], "in-force"),
            (["Question/dear"], "in-force"), (["FeatureView/early"], "unknown-definition"),
            (["Topic/headrace.late"], "in-force"), ([], "no-definition"),
        ] { #expect(errorCode { _ = try node.remove(keys) } == code, "\(keys)") }
        _ = try node.remove([
            "FeatureService/shop", "DerivedView/twice", "FeatureView/cents", "Entity/thing", "FeatureView/spare",
        ])
        func look(_ node: Node) async throws {
            for name in ["cents", "spare", "twice:n"] {
                #expect(await asyncErrorCode { _ = try await read(node, name) } == "unknown-view", "\(name)")
                #expect(
                    await asyncErrorCode { _ = try await node.features(view: name, key: "3") } == "unknown-view",
                    "\(name)")
            }
            #expect(errorCode { _ = try node.pastFeatures(view: "spare", key: "3", asOf: nil) } == "unknown-view")
            #expect(try node.featureList(search: "").text.contains("spare") == false)
            #expect(try await read(node, "price:n").values == Self.expected(700) { Double($0.count) })
            let files = try FileManager.default.contentsOfDirectory(atPath: scratch.path + "/data/views")
            #expect(files == [], "\(files)")
            #expect(try node.replay(to: nil, processor: nil)["verdict"] == "EXACT")
        }
        try await look(node)
        node.stop()
        let next = try Node(settings)
        defer { next.stop() }
        try next.start()
        try await settle(next)
        try await look(next)
        // Numbers go on; what history was begun with is served from there at once.
        try apply(next, more)
        #expect(try await read(next, "spare:total") == (totals, "spare@3"))
        try await settle(next)
        #expect(try await read(next, "cents:total") == (totals.map { $0 * 100 }, "cents@3"))
        #expect(try next.replay(to: nil, processor: nil)["verdict"] == "EXACT")
    }
}
