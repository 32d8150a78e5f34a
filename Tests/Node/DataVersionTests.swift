import API
import Base
import Catalog
import EventLog
import Foundation
import Gateway
import Node
import RecordFormat
import Streams
import Testing

/// Data that changes its shape while its history stays: upcasters on every path, and readers that stay what they were.
@Suite struct DataVersionTests {
    private let scratch: ScratchDirectory
    private let settings: NodeConfiguration

    private static let first = """
        kind: Topic
        name: rides
        schema: {type: object, required: [minutes], properties: {minutes: {type: number}}}
        ---
        kind: FeatureView
        name: riders
        topic: rides
        key: data.rider
        aggregates: [{name: total, function: sum, of: data.minutes, window: 30d}]

        """
    /// The second version counts seconds within a trip, the third has a currency.
    private static let third = """
        kind: Topic
        name: rides
        schema:
          type: object
          required: [trip, currency]
          properties: {trip: {type: object, required: [seconds], properties: {seconds: {type: number}}}}
        upcasters:
        - {set: {trip.seconds: data.minutes * 60.0, trip.from: data.start}, remove: [minutes, start]}
        - set: {currency: "'EUR'"}

        """

    init() throws {
        scratch = try ScratchDirectory()
        var settings = NodeConfiguration(
            dataDirectory: scratch.path + "/data", platformTopics: FileManager.default.currentDirectoryPath + "/Topics")
        settings.workspace = scratch.path + "/workspace"
        self.settings = settings
        try FileManager.default.createDirectory(
            atPath: scratch.path + "/workspace", withIntermediateDirectories: true)
        try write(Self.first)
    }

    private func write(_ text: String) throws {
        try Data(text.utf8).write(to: URL(filePath: scratch.path + "/workspace/w.yaml"))
    }

    private static func echo(_ name: String) -> @Sendable () -> StreamBuilder {
        {
            let rides = StreamBuilder(name)
            rides.stream("rides", JSON.self).to(name + ".out", type: "ride")
            return rides
        }
    }

    private func node(_ streams: [String]) throws -> Node {
        var settings = settings
        settings.streams = streams.map { StreamTopology(Self.echo($0)) }
        return try Node(settings)
    }

    private static let start = Instant.wallClock().milliseconds - 100_000

    private func publish(_ node: Node, _ number: Int, _ data: String, version: String? = nil) async throws -> String? {
        let event = NewEvent(
            id: "r\(number)", source: "test", type: "ride",
            time: Instant(milliseconds: Self.start + Int64(number) * 100), data: [UInt8](data.utf8),
            extensions: version.map { [(EventHeader.dataVersion, $0)] } ?? [])
        guard case .refused(let error)? = try await node.gateway.publish([("rides", event)], principal: "p").first
        else { return nil }
        return error.code
    }

    private func settle(_ node: Node) async throws {
        for _ in 0..<1000 where !(node.isSettled && node.fold.status.loaded) {
            #expect(node.failures == [])
            try await Task.sleep(for: .milliseconds(10))
        }
    }

    private func lines(_ node: Node, _ topic: String) throws -> [String] {
        var found: [String] = []
        try node.log.forEachEvent(TopicPartition(topic, 0)) { event in
            if !event.isProgress { found.append(String(decoding: event.data ?? [], as: UTF8.self)) }
            return true
        }
        return found
    }

    private func expectExact(_ node: Node, _ streams: [String]) throws {
        for name in streams { #expect(try node.replay(to: nil, processor: name)["verdict"] == "EXACT", "\(name)") }
        let whole = try node.replay(to: nil, processor: nil)
        #expect(whole["verdict"] == "EXACT", "\(whole)")
    }

    @Test func historyIsLiftedAndReadersStay() async throws {
        var node = try node(["old"])
        try node.start()
        #expect(try await publish(node, 0, #"{"minutes":2,"rider":"ann","start":"A"}"#) == nil)
        #expect(try await publish(node, 1, #"{"minutes":3,"rider":"ann"}"#, version: "1") == nil)
        try await settle(node)
        // Applied while it runs: what is published before the next start is still of the first version.
        try write(Self.third)
        try node.apply(directory: settings.workspace ?? "")
        #expect(try await publish(node, 3, #"{"minutes":4,"rider":"ann"}"#) == nil)
        try await settle(node)
        try expectExact(node, ["old"])
        node.stop()

        node = try self.node(["old", "new"])
        try node.start()
        #expect(try await publish(node, 4, #"{"trip":{"seconds":300},"currency":"USD","rider":"ann"}"#) == nil)
        #expect(try await publish(node, 5, #"{"minutes":6,"rider":"bob"}"#) == "schema-violation")
        #expect(try await publish(node, 6, #"{"minutes":6,"rider":"bob"}"#, version: "1") == nil)
        #expect(try await publish(node, 7, #"{"minutes":"x"}"#, version: "1") == "upcast-failed")
        #expect(try await publish(node, 8, #"{"trip":{"seconds":1}}"#, version: "x") == "bad-version")
        #expect(try await publish(node, 9, #"{"trip":{"seconds":7},"rider":"bob"}"#, version: "2") == nil)
        try await settle(node)
        try check(node)
        try expectExact(node, ["old", "new"])
        node.stop()

        // Another life, and what may not change.
        node = try self.node(["new", "old"])
        try node.start()
        try await settle(node)
        try check(node)
        for other in [
            Self.third.replacingOccurrences(of: "* 60.0", with: "* 61.0"),
            Self.third.replacingOccurrences(of: "- set: {currency: \"'EUR'\"}\n", with: ""),
            Self.third + "- remove: [currency]\npartitions: 2\n",
        ] {
            try write(other)
            #expect(errorCode { try node.apply(directory: settings.workspace ?? "") } == "in-force", "\(other)")
        }
        // A letter of the first version is published again as what it is.
        let letters = try node.letters(topic: "rides", code: "upcast-failed", all: false, limit: 10)
        let position = try #require(letters["letters"]?.array?.first?["position"]?.string)
        let letter = try node.letter(position)
        #expect(letter["letter"]?["dataversion"] == "1")
        var retry = Node.Retry()
        retry.positions = [position]
        let again = try await node.retry(retry)
        #expect(again["retried"]?.array?.first?["code"] == "upcast-failed", "\(again)")
        retry.data = try JSON(parsing: [UInt8](#"{"trip":{"seconds":8},"currency":"EUR"}"#.utf8))
        let mended = try await node.retry(retry)
        #expect(mended["retried"]?.array?.first?["status"] == "accepted", "\(mended)")
        try await settle(node)
        try expectExact(node, ["old", "new"])
        node.stop()
    }

    private func check(_ node: Node) throws {
        let lifted = [
            #"{"currency":"EUR","rider":"ann","trip":{"from":"A","seconds":120}}"#,
            #"{"currency":"EUR","rider":"ann","trip":{"seconds":180}}"#,
            #"{"currency":"EUR","rider":"ann","trip":{"seconds":240}}"#,
            #"{"currency":"USD","rider":"ann","trip":{"seconds":300}}"#,
            #"{"currency":"EUR","rider":"bob","trip":{"seconds":360}}"#,
            #"{"currency":"EUR","rider":"bob","trip":{"seconds":7}}"#,
        ]
        #expect(try lines(node, "new.out") == lifted)
        let old = [
            #"{"minutes":2,"rider":"ann","start":"A"}"#, #"{"minutes":3,"rider":"ann"}"#,
            #"{"minutes":4,"rider":"ann"}"#, #"{"minutes":6,"rider":"bob"}"#,
        ]
        #expect(try lines(node, "old.out") == old)
        let unfolded = try lines(node, "old.unfolded")
        #expect(unfolded.count == 2 && unfolded.allSatisfy { $0.contains("newer-version") }, "\(unfolded)")
        #expect(try lines(node, "new.unfolded") == [])
        // The workspace's own fold goes on as it began.
        #expect(try lines(node, "headrace.unfolded").count == 2)

        let routes = Routes(node: node, log: node.log, gateway: node.gateway, clock: { Instant.wallClock() })
        let page = try routes.readPage(topic: "rides", from: "", limit: 100, progress: false)
        let events = page["events"]?.array ?? []
        #expect(events.compactMap { $0["data"]?.text } == lifted)
        #expect(events.allSatisfy { $0["dataversion"] == "3" })
        let stored = try routes.readPage(topic: "rides", from: "", limit: 1, progress: false, asStored: true)
        #expect(stored["events"]?.array?.first?["data"]?.text == old[0])
    }

    /// Mistakes name their line.
    @Test(arguments: [
        ("- {set: {a: data.b +}}", "bad-expression", 4), ("- {set: {a: 3}}", "bad-definition", 4),
        ("- {}", "bad-definition", 4), ("- {remove: [a..b]}", "bad-definition", 4),
        ("- {remove: [a]}\n- {sets: {a: data.b}}", "bad-definition", 5),
        ("- {remove: [email]}", "bad-definition", 4), ("- {set: {mail: data.email}}", "bad-definition", 4),
    ])
    func mistakesAreNamed(step: String, code: String, line: Int) throws {
        try write("kind: Topic\nname: t\nupcasters:\n\(step)\npersonal: {fields: [data.email]}\n")
        let definitions = try Workspace.read(directory: settings.workspace ?? "")
        do {
            for definition in definitions { _ = try TopicDefinition(definition) }
            Issue.record("it was taken")
        } catch {
            #expect(error.code == code && error.message.contains("w.yaml:\(line)"), "\(error)")
        }
    }
}
