import Base
import Catalog
import EventLog
import Foundation
import Gateway
import Privacy
import RecordFormat
import Testing

/// The gateway over an embedded log, with a clock that the test moves.
@Suite struct GatewayTests {
    private static let topics = """
        kind: Topic
        name: people
        personal: {subject: data.who, fields: [data.mail]}
        schema: {properties: {n: {type: integer, minimum: 0}}}
        ---
        kind: Topic
        name: plain
        schema: {properties: {n: {type: integer, minimum: 0}}}
        ---
        kind: Topic
        name: headrace.dead-letters
        """

    private let scratch: ScratchDirectory
    private let log: EmbeddedLog
    private let keys: KeyStore
    private let gateway: Gateway
    private let clock = Monitor<Int64>(1_700_000_000_000)

    init() throws {
        scratch = try ScratchDirectory()
        log = try EmbeddedLog.open(scratch.path + "/log")
        keys = try KeyStore(DiskVolume(scratch.path + "/keys"))
        gateway = Gateway(log: log, keys: keys, clock: { [clock] in Instant(milliseconds: clock.withLock { $0 }) })
        for definition in try Workspace.parse(Self.topics, file: "t") {
            try gateway.declare(
                try TopicDefinition(definition), reserved: definition.name.hasPrefix("headrace."))
        }
    }

    private func event(_ id: String, _ data: String, time: Int64? = nil) -> NewEvent {
        NewEvent(
            id: id, source: "test", type: "t", time: Instant(milliseconds: time ?? clock.withLock { $0 }),
            data: [UInt8](data.utf8))
    }

    private func publish(_ topic: String, _ events: [NewEvent]) async throws -> [String] {
        try await gateway.publish(events.map { (topic, $0) }, principal: "p").map { verdict in
            switch verdict {
            case .accepted: "accepted"
            case .refused(let error): error.code
            }
        }
    }

    /// What is refused gives nobody a key; its letter is sealed for the person who has one, for the topic otherwise, and for
    /// all unknown topics together. A name that stands for a topic is nobody's. An event that sealing makes too large is
    /// refused alone.
    @Test func refusedEventsMakeNoKeys() async throws {
        let long = String(repeating: "x", count: Limits.eventData - 60)
        #expect(try await publish("people", [event("1", #"{"who":"ann","mail":"a@b","n":1}"#)]) == ["accepted"])
        #expect(keys.counts.live == 1 && keys.has("ann"))
        let verdicts = try await publish(
            "people",
            [
                event("2", #"{"who":"bob","mail":"b@b","n":-1}"#), event("3", #"{"who":"ann","mail":"c@b","n":-1}"#),
                event("4", #"{"who":"topic:people","mail":"d@b","n":1}"#),
                event("5", #"{"who":"dan","mail":"\#(long)"}"#), event("6", #"{"who":"eve","mail":"e@b","n":1}"#),
            ])
        #expect(
            verdicts == ["schema-violation", "schema-violation", "bad-subject", "event-too-large", "accepted"])
        #expect(try await publish("peple", [event("7", #"{"who":"fay","mail":"f@b"}"#)]) == ["unknown-topic"])
        // Ann and Eve, and one each for the letters of the topic and of the topics that nobody declared.
        #expect(keys.counts.live == 4, "\(keys.counts)")
        let strangers = ["bob", "dan", "fay", "topic:peple"]
        #expect(strangers.allSatisfy { !keys.has($0) } && keys.has("topic:people") && keys.has("topic:"))
        var names: [String] = []
        try log.forEachEvent(TopicPartition(Gateway.deadLetterTopic, 0)) { event in
            let raw = String(decoding: event.data ?? [], as: UTF8.self)
            #expect(!raw.contains("@b"), "\(raw)")
            names.append(event.header(EventHeader.keyID) ?? "")
            return true
        }
        let ann = try keys.find("ann").map { "\($0)" }
        #expect(names.count == 5 && names.filter { $0 == ann }.count == 1 && Set(names).count == 3, "\(names)")
        log.close()
    }

    /// An append that fails leaves no trace in what is promised: the instant that is closed is that of the last event that
    /// is there, and later events before the failed one's time are not late.
    @Test func afterAFailedAppendOnlyWhatIsThereIsClosed() async throws {
        let input = TopicPartition("plain", 0)
        gateway.feed(inputs: [input], claimed: [])
        try gateway.resumeFeeds()
        func closed() throws -> [String] {
            clock.withLock { $0 += Gateway.closeAfter + 1 }
            try gateway.closeInstant()
            var seen: [String] = []
            try log.forEachEvent(input) { event in
                guard event.isProgress, let data = event.data else { return true }
                let json = try JSON(parsing: data)
                let through = json["through"]?.string.flatMap { Instant($0) }?.milliseconds ?? -1
                seen.append("\(json["state"]?.string ?? "") \(through - 1_700_000_000_000)")
                return true
            }
            return seen
        }
        let start: Int64 = 1_700_000_000_000
        #expect(try await publish("plain", [event("1", "{}", time: start + 10)]) == ["accepted"])
        #expect(try closed().suffix(2) == ["active 9", "idle 10"])
        // More than one append takes, far ahead.
        let many = (0...Limits.appendEvents).map { event("m\($0)", "{}", time: start + 5000) }
        await #expect(throws: EventLogError.self) { try await publish("plain", many) }
        let after = try closed()
        #expect(after.last == "idle 10", "\(after)")
        #expect(try await publish("plain", [event("2", "{}", time: start + 20)]) == ["accepted"])
        #expect(try closed().last == "idle 20")
        log.close()
    }

    /// Progress that anybody wrote is only believed as far as it makes sense: no round can stop a start or run over.
    @Test(arguments: [
        #"{"through":"2024-01-01T00:00:00Z","state":"active","round":9007199254740993}"#,
        #"{"through":"2024-01-01T00:00:00Z","state":"active","round":-5}"#,
        #"{"through":"2024-01-01T00:00:00Z","state":"active","round":9223372036854775807}"#, "not JSON", "[]",
    ]) func strangeProgressStopsNothing(data: String) async throws {
        let input = TopicPartition("plain", 0)
        let progress = NewEvent(
            id: "p", source: "x", type: EventType.progress, time: Instant(milliseconds: 0), data: [UInt8](data.utf8))
        _ = try log.append(LogAppend(principal: "x", events: [("plain", 0, progress)]))
        gateway.feed(inputs: [input], claimed: [])
        try gateway.resumeFeeds()
        #expect(try await publish("plain", [event("1", "{}")]) == ["accepted"])
        clock.withLock { $0 += Gateway.closeAfter + 1 }
        try gateway.closeInstant()
        var rounds: [Int64] = []
        try log.forEachEvent(input) { event in
            if event.isProgress, event.id != "p", let data = event.data {
                rounds.append(try JSON(parsing: data)["round"]?.int ?? -1)
            }
            return true
        }
        #expect(rounds.count >= 2 && rounds.allSatisfy { (0...10).contains($0) }, "\(rounds)")
        log.close()
    }
}
