import Base
import EventLog
import Foundation
import Gateway
import RecordFormat

/// State of a connector, in Kafka Connect's words.
package struct ConnectorStatus: Sendable {
    package var state = "UNASSIGNED"
    package var total = 0
    package var done = 0
    /// Of those that are done: by this run.
    package var played = 0
    package var refused = 0
    package var damagedRows = 0
    package var through: Instant?
    package var trace: String?
    /// What it last waited for and got over.
    package var trouble: String?
    package init() {}
}

/// A source that plays recorded history from CSV files in event-time order. Each append carries events, the progress of
/// every partition it writes, and the source offset, atomically: a restart goes on exactly where the log ends.
package final class CSVHistorySource: Sendable {
    package static let className = "CsvHistorySource"
    package static let offsetsTopic = "connect.offsets"
    /// Events of one append.
    static let batchEvents = 2000

    package let configuration: ConnectorConfiguration
    package let topics: [String]
    private let log: any EventLog
    private let gateway: Gateway
    private let monitor = Monitor(ConnectorStatus())
    private let stopping = Monitor(false)
    /// Of the attempt under way; a failure ends it.
    private let attempt: Monitor<AppendPipeline>
    private var pipeline: AppendPipeline { attempt.withLock { $0 } }

    package init(_ configuration: ConnectorConfiguration, log: any EventLog, gateway: Gateway) throws(ConnectorsError) {
        // Recorded history may declare when its events became known; the one way here is "when they happened".
        let known = configuration.values["known.time"] ?? "event"
        guard known == "event" else {
            throw ConnectorsError("bad-connector", "\(configuration.place): 'known.time' is event, not '\(known)'")
        }
        self.configuration = configuration
        self.log = log
        attempt = Monitor(AppendPipeline(log: log))
        self.gateway = gateway
        var seen: Set<String> = []
        var topics: [String] = []
        for event in try configuration.list("events") {
            let topic = try configuration.string("events.\(event).topic")
            if seen.insert(topic).inserted { topics.append(topic) }
        }
        self.topics = topics
    }

    /// Finds mistakes in the declaration: settings, columns that the files lack, expressions.
    package static func check(_ configuration: ConnectorConfiguration) throws {
        _ = try CSVHistory(configuration, headersOnly: true)
    }

    package var status: ConnectorStatus { monitor.withLock { $0 } }
    package func stop() { stopping.update { $0 = true } }

    /// Plays what is left, on the caller's thread.
    package func run() {
        monitor.withLock { $0.state = "RUNNING" }
        do {
            try persist()
            let stopped = stopping.withLock { $0 }
            monitor.withLock { $0.state = stopped ? "STOPPED" : "FINISHED" }
        } catch {
            monitor.withLock {
                $0.state = "FAILED"
                $0.trace = "\(error)"
            }
        }
    }

    /// How long a connector waits before it goes on after trouble that passes, in seconds.
    private static let pause = 1.0

    /// Plays on after trouble that passes, from what the log holds by then: an append whose outcome is unknown is there
    /// with its offset, or it is not.
    private func persist() throws {
        while true {
            do {
                return try play()
            } catch let error as EventLogError where error.retriable || error.code == "outcome-unknown" {
                monitor.withLock { $0.trouble = error.message }
                if stopping.wait(seconds: Self.pause, until: { $0 ? true : nil }) != nil { return }
                attempt.withLock { $0 = AppendPipeline(log: log) }
            }
        }
    }

    /// The offset after the last durable append, and the digest of what was being played.
    private func resume() throws -> (offset: Int, digest: String)? {
        var last: (Int, String)?
        try log.forEachEvent(TopicPartition(Self.offsetsTopic, 0)) { event in
            guard let data = event.data, let json = try? JSON(parsing: data),
                json["connector"]?.string == configuration.name,
                let offset = json["offset"]?.int
            else { return true }
            last = (Int(offset), json["history"]?.string ?? "")
            return true
        }
        return last
    }

    private func play() throws {
        let history = try CSVHistory(configuration)
        var planned = history.plan()
        let limit = try configuration.values["until"].map { text in
            guard let limit = Instant(text) else {
                throw ConnectorsError("bad-time", "'until' of '\(configuration.name)': '\(text)' is no RFC 3339 time")
            }
            return limit
        }
        if let limit { planned.removeAll { $0.time > limit.milliseconds } }
        var stream = DigestStream()
        for table in history.tables { stream.update(table.table.bytes) }
        for (key, value) in configuration.values.sorted(by: { $0.key < $1.key })
        where !["directory", "until"].contains(key) { stream.update(key + "=" + value + "\n") }
        let digest = stream.finish().hex
        var offset = 0
        if let saved = try resume() {
            guard saved.digest == digest else {
                throw ConnectorsError(
                    "history-changed",
                    "the files or settings of '\(configuration.name)' are not those of offset \(saved.offset); use a new connector name or a new data directory"
                )
            }
            offset = saved.offset
        } else {
            try report(history, digest)
        }
        let damaged = history.tables.reduce(0) { $0 + $1.table.damaged.count } + history.failedRows.count
        monitor.withLock {
            $0.total = planned.count
            $0.done = offset
            $0.damagedRows = damaged
        }
        while offset < planned.count, !stopping.withLock({ $0 }) {
            offset = try send(history, planned, from: offset, digest)
        }
        try pipeline.drain()
    }

    /// Damaged rows go to the dead letters with file, line and text.
    private func report(_ history: CSVHistory, _ digest: String) throws {
        var letters: [(topic: String, event: NewEvent)] = []
        // When a row that cannot be read happened, nobody knows; its letter tells when it was refused.
        let now = gateway.now
        func add(_ table: String, _ place: String, _ text: String, _ reason: String) {
            let data = JSON.object([
                "connector": .string(configuration.name), "table": .string(table), "place": .string(place),
                "raw": .string(text),
                "reason": .string(reason), "code": "bad-row",
            ])
            letters.append(
                (
                    topic(ofTable: table, history),
                    NewEvent(
                        id: "row:\(configuration.name):\(table):\(place)",
                        source: "headrace:/connectors/\(configuration.name)",
                        type: "row.refused", time: now, data: data.canonical)
                ))
        }
        for table in history.tables {
            for row in table.table.damaged {
                add(table.name, "line \(row.line)", row.text, row.reason)
            }
        }
        for row in history.failedRows {
            let table = history.tables[row.table]
            add(table.name, "line \(table.table.lines[row.row])", table.table.text(ofRow: row.row), row.reason)
        }
        for start in stride(from: 0, to: letters.count, by: Self.batchEvents) {
            let end = min(start + Self.batchEvents, letters.count)
            var intake = Intake(gateway, gateway.checker())
            for (topic, letter) in letters[start..<end] { intake.deadLetter(letter, of: topic) }
            // With the last of them stands that they are all there; a log that knows no ids would take them twice.
            if end == letters.count {
                let (topic, partition, event) = place(0, digest, now)
                intake.add(topic, partition, event)
            }
            _ = try log.append(LogAppend(principal: principal, events: try intake.sealed()))
        }
    }

    /// The topic that a table's rows go to; one with personal fields where there is one, as a row holds them all.
    private func topic(ofTable name: String, _ history: CSVHistory) -> String {
        let topics = history.kinds.filter { history.tables[$0.table].name == name }.map(\.topic)
        return topics.first { gateway.topic($0)?.personal != nil } ?? topics.first ?? ""
    }

    /// The source offset, which stands in the same append as what it speaks of.
    private func place(_ offset: Int, _ digest: String, _ time: Instant) -> (
        topic: String, partition: Int?, event: NewEvent
    ) {
        let position = JSON.object([
            "connector": .string(configuration.name), "offset": .int(Int64(offset)), "history": .string(digest),
        ])
        return (
            Self.offsetsTopic, 0,
            NewEvent(
                id: "offset:\(configuration.name):\(offset)", source: "headrace:/connectors/\(configuration.name)",
                type: "connector.offset", time: time, key: [UInt8](configuration.name.utf8), data: position.canonical)
        )
    }

    private var principal: String { "connector:\(configuration.name)" }

    private func send(
        _ history: CSVHistory, _ planned: [CSVHistory.Planned], from: Int, _ digest: String
    ) throws -> Int {
        let to = min(from + Self.batchEvents, planned.count)
        let checker = gateway.checker()
        var intake = Intake(gateway, checker)
        var refused = 0
        for index in from..<to {
            do {
                let (topic, event) = try history.event(planned[index])
                if let refusal = checker.check(topic: topic, event, history: true) {
                    refused += 1
                    intake.refuse(topic, event, refusal)
                } else {
                    intake.accept(topic, event)
                }
            } catch {
                refused += 1
                let kind = history.kinds[Int(planned[index].kind)]
                let bad = NewEvent(
                    id: "\(kind.name):\(history.line(of: planned[index]))",
                    source: "headrace:/connectors/\(configuration.name)",
                    type: kind.type, time: Instant(milliseconds: planned[index].time),
                    data: [UInt8](history.text(of: planned[index]).utf8))
                intake.refuse(kind.topic, bad, GatewayError("bad-row", error.message))
            }
        }
        let last = Instant(milliseconds: planned[to - 1].time)
        let finished = to == planned.count
        let through = finished ? last : Instant(milliseconds: planned[to].time - 1)
        let time = min(through, last)
        for topic in topics {
            for partition in 0..<log.partitions(of: topic) {
                let data =
                    "{\"through\":\"\(through)\",\"state\":\"\(finished ? "finished" : "active")\",\"history\":true,\"knownTime\":\"event\"}"
                intake.add(
                    topic, partition,
                    NewEvent(
                        id: "progress:\(configuration.name):\(partition):\(to)",
                        source: "headrace:/connectors/\(configuration.name)",
                        type: EventType.progress, time: time, data: [UInt8](data.utf8)))
            }
        }
        let offset = place(to, digest, time)
        intake.add(offset.topic, offset.partition, offset.event)
        try hand(try intake.sealed(), done: to, refused: refused, through: through)
        return to
    }

    private func hand(
        _ events: [(topic: String, partition: Int?, event: NewEvent)], done: Int, refused: Int, through: Instant
    ) throws {
        try pipeline.send(LogAppend(principal: principal, events: events)) { [monitor] _ in
            monitor.withLock {
                $0.played += max(0, done - $0.done)
                $0.done = max($0.done, done)
                $0.refused += refused
                $0.through = through
            }
            return nil
        }
    }
}
