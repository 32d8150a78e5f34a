import Base
import EventLog
import Foundation
import Node
import RecordFormat
import Testing

/// Dead letters of a node in this process: seen, brought in again, healed.
@Suite struct LetterTests {
    private static let workspace = """
        kind: Topic
        name: orders
        personal: {subject: data.who, fields: [data.mail]}
        schema: {required: [n], properties: {n: {type: integer, minimum: 0}}}
        ---
        kind: FeatureView
        name: totals
        topic: orders
        key: data.who
        aggregates:
          - {name: total, function: sum, of: data.amount, window: 1d}
        """

    private let scratch: ScratchDirectory
    private let node: Node

    init() throws {
        scratch = try ScratchDirectory()
        var settings = NodeConfiguration(
            dataDirectory: scratch.path + "/data", platformTopics: FileManager.default.currentDirectoryPath + "/Topics")
        settings.workspace = scratch.path + "/workspace"
        try FileManager.default.createDirectory(
            atPath: scratch.path + "/workspace", withIntermediateDirectories: true)
        try Data(Self.workspace.utf8).write(to: URL(filePath: scratch.path + "/workspace/w.yaml"))
        node = try Node(settings)
    }

    private func publish(_ id: String, _ data: String) async throws {
        let event = NewEvent(
            id: id, source: "test", type: "ordered", time: Instant.wallClock(), key: [UInt8]("k".utf8), subject: "s",
            data: [UInt8](data.utf8))
        _ = try await node.gateway.publish([("orders", event)], principal: "p")
    }

    private func list(_ topic: String? = nil, code: String? = nil, all: Bool = false) throws -> [JSON] {
        try node.letters(topic: topic, code: code, all: all, limit: 10)["letters"]?.array ?? []
    }

    private func retry(_ letter: String, _ data: JSON? = nil, now: Bool = false) async throws -> JSON {
        var retry = Node.Retry()
        (retry.positions, retry.data, retry.isNow) = ([letter], data, now)
        return try await node.retry(retry)["retried"]?.array?.first ?? .null
    }

    /// Refused by the gateway: the same again is refused again, mended it is accepted once and the letter is healed.
    @Test func refusedEventsAreMended() async throws {
        try await publish("1", #"{"who":"ann","mail":"a@b","n":-1}"#)
        try await publish("2", #"{"n":1,"#)
        let letters = try list()
        #expect(letters.map { $0["code"] } == ["schema-violation", "bad-json"] && letters[0]["attempts"] == .int(0))
        #expect(try list(code: "bad-json").count == 1 && list("other").isEmpty)
        let place = letters[0]["position"]?.string ?? ""
        #expect(try node.letter(place)["letter"]?["raw"] == #"{"who":"ann","mail":"a@b","n":-1}"#)
        let again = try await retry(place)
        #expect(again["status"] == "refused" && again["code"] == "schema-violation", "\(again)")
        // The same refusal is the same letter.
        #expect(try list().count == 2 && list()[0]["attempts"] == .int(1))
        let mended = try await retry(place, ["who": "ann", "mail": "a@b", "n": 1])
        #expect(mended["status"] == "accepted" && mended["position"] == "orders/0@0", "\(mended)")
        #expect(try list().count == 1 && list(all: true).first?["healed"] == true)
        #expect(try await retry(place, ["who": "ann", "mail": "a@b", "n": 1])["status"] == "duplicate")
        var stored: [String] = []
        try node.log.forEachEvent(TopicPartition("orders", 0)) { event in
            if !event.isProgress {
                let key = String(decoding: event.key ?? [], as: UTF8.self)
                let mail = try JSON(parsing: node.gateway.opened(event, topic: "orders") ?? [])["mail"]
                stored.append("\(event.id) \(key) \(event.header("ce_subject") ?? "") \(mail?.text ?? "")")
                #expect(event.header("ce_causationid") == place)
            }
            return true
        }
        #expect(stored == [#"1 k s "a@b""#])
        await #expect(throws: NodeError.self) { try await retry("orders/0@0") }
        await #expect(throws: NodeError.self) { try await node.retryLetters([:]) }
        let all = try await node.retryLetters(["all": true])["retried"]?.array ?? []
        #expect(all.map { $0["status"] } == ["refused"])
        node.stop()
    }

    /// In the log, but not to be folded: a mended copy, dated now, is folded.
    @Test func unfoldedEventsAreMended() async throws {
        try node.start()
        try await publish("1", #"{"who":"ann","n":1,"amount":"twelve"}"#)
        func wait(_ what: () throws -> Bool) async throws {
            for _ in 0..<200 where !(try what()) { try await Task.sleep(for: .milliseconds(25)) }
            #expect(try what())
        }
        try await wait { try list().count == 1 }
        let letter = try list()[0]
        #expect(letter["code"] == "not-a-number" && letter["topic"] == "orders", "\(letter)")
        let answer = try await retry(
            letter["position"]?.string ?? "", ["who": "ann", "n": 1, "amount": 12], now: true)
        #expect(answer["status"] == "accepted", "\(answer)")
        try await wait { node.isSettled }
        #expect(try await node.features(view: "totals", key: "ann")["features"]?["total"] == .double(12))
        #expect(try list().isEmpty && list(all: true).count == 1)
        node.stop()
    }
}
