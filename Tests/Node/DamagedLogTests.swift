import API
import Base
import EventLog
import Foundation
import Node
import RecordFormat
import Testing

/// What a node does with large events, and with a log that has gone bad in the middle of what was folded already.
@Suite struct DamagedLogTests {
    private let scratch: ScratchDirectory
    private let settings: NodeConfiguration

    init() throws {
        scratch = try ScratchDirectory()
        var settings = NodeConfiguration(
            dataDirectory: scratch.path + "/data", platformTopics: FileManager.default.currentDirectoryPath + "/Topics")
        settings.workspace = scratch.path + "/workspace"
        self.settings = settings
        try FileManager.default.createDirectory(
            atPath: scratch.path + "/workspace", withIntermediateDirectories: true)
        try Data(
            "kind: Topic\nname: t\n---\nkind: FeatureView\nname: v\ntopic: t\nkey: data.k\nlatest: {n: data.n}\n".utf8
        )
        .write(to: URL(filePath: scratch.path + "/workspace/w.yaml"))
    }

    private func publish(_ node: Node, _ number: Int, size: Int) async throws {
        let text = String(repeating: "abcdefgh", count: size / 8)
        let event = NewEvent(
            id: "e\(number)", source: "test", type: "t", time: Instant.wallClock(), key: [UInt8]("k".utf8),
            data: [UInt8](#"{"k":"a","n":\#(number),"text":"\#(text)"}"#.utf8))
        _ = try await node.gateway.publish([("t", event)], principal: "p")
    }

    private func page(_ node: Node, from: String) throws -> (ids: [String], next: String) {
        let routes = Routes(node: node, log: node.log, gateway: node.gateway, clock: { Instant.wallClock() })
        let page = try routes.readPage(topic: "t", from: from, limit: Limits.pageEvents, progress: false)
        #expect(page.canonical.count <= Limits.jsonText)
        _ = try JSON(parsing: page.canonical)
        return ((page["events"]?.array ?? []).compactMap { $0["id"]?.string }, page["next"]?.string ?? "")
    }

    /// A page ends before it is too large to be read; a larger event is a page of its own, and none is passed over.
    @Test func pagesHaveASize() async throws {
        let node = try Node(settings)
        let sizes = [3 << 20, 3 << 20, 100, 15 << 20, 100, 100]
        for (number, size) in sizes.enumerated() { try await publish(node, number, size: size) }
        var pages: [[String]] = []
        var next = ""
        while pages.last != [] {
            let (ids, token) = try page(node, from: next)
            pages.append(ids)
            next = token
        }
        #expect(pages == [["e0"], ["e1", "e2"], ["e3"], ["e4", "e5"], []], "\(pages)")
        node.stop()
    }

    /// Whoever goes on where retention has been is told what it will not see; whoever begins is not.
    @Test func whatRetentionTookIsTold() async throws {
        let node = try Node(settings)
        for number in 0..<6 { try await publish(node, number, size: 80) }
        let going = try page(node, from: "0:2").ids
        try node.log.trim(TopicPartition("t", 0), before: 4)
        let routes = Routes(node: node, log: node.log, gateway: node.gateway, clock: { Instant.wallClock() })
        func trimmed(_ from: String) throws -> (ids: [String], gone: String) {
            let page = try routes.readPage(topic: "t", from: from, limit: 10, progress: false)
            let ids = (page["events"]?.array ?? []).compactMap { $0["id"]?.string }
            return (ids, (page["trimmed"]?.array ?? []).compactMap(\.string).joined())
        }
        #expect(going == ["e2", "e3", "e4", "e5"])
        #expect(try trimmed("0:2") == (["e4", "e5"], "t/0 from offset 2 to 3"))
        try node.log.trim(TopicPartition("t", 0), before: 6)
        let routed = try routes.readPage(topic: "t", from: "0:2", limit: 10, progress: false)
        #expect(routed["next"] == "0:6" && routed["trimmed"]?.array?.count == 1, "told once")
        for from in ["", "beginning", "0:6", "end"] { #expect(try trimmed(from).gone.isEmpty) }
        node.stop()
    }

    /// The node starts, serves what was folded and what can be read up to the damage, and says where it is.
    @Test func aNodeOutlivesRot() async throws {
        let node = try Node(settings)
        try node.start()
        for number in 0..<6 { try await publish(node, number, size: 80) }
        for _ in 0..<400 where !node.isSettled { try await Task.sleep(for: .milliseconds(25)) }
        let whole = try page(node, from: "").ids
        #expect(whole == (0..<6).map { "e\($0)" })
        node.stop()

        let path = settings.logDirectory + "/00000000000000000000.wal"
        var bytes = try Data(contentsOf: URL(filePath: path))
        let place = try #require(bytes.range(of: Data(#""n":3"#.utf8)))
        bytes[place.lowerBound] ^= 1
        try bytes.write(to: URL(filePath: path))
        for name in try FileManager.default.contentsOfDirectory(atPath: settings.logDirectory)
        where name.hasSuffix(".index") {
            try FileManager.default.removeItem(atPath: settings.logDirectory + "/" + name)
        }
        var again = settings
        again.workspace = nil
        let damaged = try Node(again)
        try damaged.start()
        for _ in 0..<400 where !damaged.fold.status.loaded { try await Task.sleep(for: .milliseconds(25)) }
        #expect(try await damaged.features(view: "v", key: "a")["features"]?["n"] == .double(5))
        let (before, next) = try page(damaged, from: "")
        #expect(before == ["e0", "e1", "e2"], "\(before)")
        var message = ""
        do { _ = try page(damaged, from: next) } catch { message = "\(error)" }
        let offset = try #require(message.firstMatch(of: /from offset (\d+) on/)?.1)
        #expect(message.contains("[rot]"))
        #expect(try page(damaged, from: String(offset)).ids == ["e4", "e5"])
        let backup = try damaged.logBackup(scratch.path + "/backup")
        #expect(backup["damaged"]?.array?.count == 1, "\(backup)")
        damaged.stop()
    }
}
