import Base
import EventLog
import Foundation
import Gateway
import HTTP
import RecordFormat

/// The routes of a node.
package struct Routes: Sendable {
    let node: any NodeReading
    private let log: any EventLog
    let gateway: Gateway
    let clock: @Sendable () -> Instant
    private let followers = Monitor(0)
    /// Reads of files and views, and what may take minutes, apart from each other and from Swift's pool.
    private let quick = BlockingPool(name: "reader", threads: 2, limit: 256)
    let long = BlockingPool(name: "audit", threads: 2, limit: 16)

    package init(node: any NodeReading, log: any EventLog, gateway: Gateway, clock: @escaping @Sendable () -> Instant) {
        self.node = node
        self.log = log
        self.gateway = gateway
        self.clock = clock
    }

    package func install(on server: HTTPServer) {
        events(server)
        reads(server)
        log(server)
        common(server)
    }

    /// The routes of a node that folds a share of streams and takes no events.
    package func installShare(on server: HTTPServer) {
        streams(server)
        server.route("GET", "/v1/status") { [node, quick] _ in .json(try await quick.run { try node.status() }) }
        common(server)
    }

    private func streams(_ server: HTTPServer) {
        server.route("GET", "/v1/streams/:stream/:view/:key") { [node] request in
            .json(
                try await node.view(
                    stream: request.parameters["stream"] ?? "", view: request.parameters["view"] ?? "",
                    key: request.parameters["key"] ?? "", asOf: request.query["asOf"],
                    task: try number(request, "task", 0...Int.max)))
        }
    }

    private func common(_ server: HTTPServer) {
        server.route("GET", "/health/live") { _ in .json(["live": true]) }
        server.route("GET", "/health/ready") { [node] _ in
            let (ready, reason) = node.readiness()
            return .json(.object(["ready": .bool(ready), "reason": .string(reason)]), status: ready ? 200 : 503)
        }
        server.route("GET", "/metrics") { [node, quick] _ in
            .text(try await quick.run { try node.metrics() }, contentType: "text/plain; version=0.0.4; charset=utf-8")
        }
    }

    private func events(_ server: HTTPServer) {
        server.route("POST", "/v1/events") { [self] request in try await publish(request) }
        server.route("GET", "/v1/topics/:topic/events") { [self] request in try await quick.run { try page(request) } }
        server.route("GET", "/v1/topics/:topic/stream") { [self] request in try await stream(request) }
    }

    /// The log's own: what stands in its files, whether they are whole, copies and repairs.
    private func log(_ server: HTTPServer) {
        func read(_ path: String, _ body: @escaping @Sendable (any NodeReading, WebRequest) throws -> JSON) {
            server.route("GET", path) { [node, quick] request in .json(try await quick.run { try body(node, request) })
            }
        }
        func work(_ path: String, _ body: @escaping @Sendable (any NodeReading, WebRequest) throws -> JSON) {
            server.route("POST", path) { [node, long] request in .json(try await long.run { try body(node, request) }) }
        }
        read("/v1/log") { node, _ in try node.logInspection() }
        read("/v1/log/order") { node, request in
            let limit = try number(request, "limit", 1...Limits.pageEvents) ?? 50
            return try node.logOrder(from: Int64(try number(request, "from", 0...Int.max) ?? 0), limit: limit)
        }
        work("/v1/log/verify") { node, _ in try node.logVerification() }
        work("/v1/log/backup") { node, request in
            try node.logBackup(try member("directory", "an absolute path on the node's machine", of: request))
        }
        work("/v1/log/repair") { node, request in
            let mode = try member("mode", "\"repair\" or \"dry-run\"", of: request)
            guard ["repair", "dry-run"].contains(mode) else {
                throw APIError("bad-mode", "'mode' is repair or dry-run, not '\(mode)'")
            }
            return try node.logRepair(dryRun: mode == "dry-run")
        }
        work("/v1/log/unpin") { node, request in try node.unpin(try member("pin", "the pin's name", of: request)) }
    }

    private func reads(_ server: HTTPServer) {
        func read(_ path: String, _ body: @escaping @Sendable (any NodeReading, WebRequest) throws -> JSON) {
            server.route("GET", path) { [node, quick] request in .json(try await quick.run { try body(node, request) })
            }
        }
        func work(_ path: String, _ body: @escaping @Sendable (any NodeReading, WebRequest) throws -> JSON) {
            server.route("POST", path) { [node, long] request in .json(try await long.run { try body(node, request) }) }
        }
        capabilities(server)
        read("/v1/status") { node, _ in try node.status() }
        read("/v1/topics") { node, _ in try node.topicList() }
        read("/v1/definitions") { node, _ in try node.definitions() }
        read("/v1/topology") { node, _ in try node.topology() }
        read("/v1/report/:name") { node, request in try node.report(request.parameters["name"] ?? "") }
        read("/v1/console") { node, _ in try node.console() }
        read("/v1/lineage") { node, request in
            try node.lineage(request.query["node"] ?? "", depth: try number(request, "depth", 0...10_000))
        }
        work("/v1/sql") { node, request in try node.sql(String(decoding: request.body, as: UTF8.self)) }
        work("/v1/audit/:kind") { node, request in
            try node.audit(request.parameters["kind"] ?? "", request.query["subject"] ?? "")
        }
        work("/v1/erase") { node, request in
            try node.erase(try member("subject", "whose personal fields shall become unreadable", of: request))
        }
        read("/v1/letters") { node, request in
            try node.letters(
                topic: request.query["topic"], code: request.query["code"], all: request.query["all"] == "true",
                limit: try number(request, "limit", 1...Limits.pageEvents) ?? 50)
        }
        read("/v1/letter") { node, request in try node.letter(request.query["position"] ?? "") }
        server.route("POST", "/v1/letters/retry") { [node] request in
            guard request.header("content-type")?.hasPrefix("application/json") == true,
                let body = try? JSON(parsing: request.body), body.object != nil
            else {
                throw APIError(
                    "bad-json", "this is asked for with Content-Type: application/json and an object as body")
            }
            return .json(try await node.retryLetters(body))
        }
        streams(server)
        work("/v1/replay") { node, request in
            try node.replay(to: request.query["to"], processor: request.query["processor"])
        }
        server.route("GET", "/v1/features/:view/:key") { [node, long] request in
            let (view, key) = (request.parameters["view"] ?? "", request.parameters["key"] ?? "")
            if let unknown = request.query.keys.filter({ $0 != "asOf" }).min() {
                throw APIError("bad-request", "'?\(unknown)=' is unknown here; known is 'asOf'")
            }
            if let asOf = request.query["asOf"] {
                return .json(try await long.run { try node.pastFeatures(view: view, key: key, asOf: asOf) })
            }
            return .json(try await node.features(view: view, key: key))
        }
    }

    /// Answers where each event stands, or why it does not; 200 when all were taken, 207 when some were, otherwise the
    /// status of the first refusal.
    private func publish(_ request: WebRequest) async throws -> WebResponse {
        let (answer, status) = try await offer(
            try CloudEventsFormat.read(request, now: clock()), principal: "http",
            durability: try durability(request.query["durability"]))
        return .json(answer, status: status)
    }

    /// What an answer shall promise: synced, or relaxed where somebody asks for it by name.
    private func durability(_ text: String?) throws -> Durability {
        switch text {
        case nil, "", Durability.synced.rawValue: return .synced
        case Durability.relaxed.rawValue: return .relaxed
        case let other?: throw APIError("bad-durability", "'durability' is synced or relaxed, not '\(other)'")
        }
    }

    /// A batch of structured CloudEvents, as `POST /v1/events` takes it.
    package func publishBatch(_ batch: JSON, topic: String, durability text: String? = nil) async throws -> JSON {
        try await offer(
            try CloudEventsFormat.batch(batch, topic, clock()), principal: "cli", durability: try durability(text)
        ).answer
    }

    private func offer(
        _ incoming: [CloudEventsFormat.Incoming], principal: String, durability: Durability
    ) async throws -> (answer: JSON, status: Int) {
        var offered: [(topic: String, event: NewEvent)] = []
        for item in incoming { if case .success(let event) = item.event { offered.append((item.topic, event)) } }
        var verdicts = try await gateway.publish(offered, principal: principal, durability: durability)
            .makeIterator()
        var answers: [JSON] = []
        var taken = 0
        var firstRefusal: (any DescribedError)?
        for item in incoming {
            switch item.event {
            case .failure(let error):
                firstRefusal = firstRefusal ?? error
                answers.append(refusal(error, item.id))
            case .success(let event):
                switch verdicts.next() {
                case .accepted(let receipt, let durability)?:
                    taken += 1
                    var answer: [String: JSON] = [
                        "id": .string(event.id), "status": receipt.duplicate ? "duplicate" : "accepted",
                        "position": .string(receipt.position.description),
                        "sequence": receipt.position.sequence.map { .int(Int64($0)) } ?? .null,
                        "durability": .string(durability.rawValue),
                    ]
                    // Who said no time learns which it got: everything before it is late now.
                    if !item.isDated { answer["time"] = .string(event.time.description) }
                    answers.append(.object(answer))
                case .refused(let error)?:
                    firstRefusal = firstRefusal ?? error
                    answers.append(refusal(error, event.id))
                case nil: throw APIError("internal", "an event got no verdict", fault: .headrace)
                }
            }
        }
        let status = taken == incoming.count ? 200 : (taken > 0 ? 207 : firstRefusal.map { httpStatus($0) } ?? 400)
        var body: [String: JSON] = ["events": .array(answers)]
        if taken == 0, let firstRefusal {
            body["error"] = .object(["code": .string(firstRefusal.code), "message": .string(firstRefusal.message)])
        }
        return (.object(body), status)
    }

    private func refusal(_ error: any DescribedError, _ id: String?) -> JSON {
        .object([
            "id": id.map { .string($0) } ?? .null, "status": "refused", "code": .string(error.code),
            "message": .string(error.message),
        ])
    }

    private func require(_ topic: String) throws {
        guard log.partitions(of: topic) > 0 else { throw APIError("unknown-topic", "there is no topic '\(topic)'") }
    }

    /// Where a reader begins: `from` or Last-Event-ID as `partition:offset,…`, one number for every partition, a moment
    /// (in each partition the first event of that time or a later one), `end`, or nothing for the beginning.
    private func start(_ text: String?, _ topic: String) throws -> [Int64] {
        let count = log.partitions(of: topic)
        var result: [Int64] = []
        for partition in 0..<count { result.append(try log.offsets(TopicPartition(topic, partition)).lowerBound) }
        guard let text, !text.isEmpty else { return result }
        if text == "end" {
            for partition in 0..<count {
                result[partition] = try log.offsets(TopicPartition(topic, partition)).upperBound
            }
            return result
        }
        if text == "beginning" { return result }
        if let moment = Instant(text) {
            return try (0..<count).map { try log.offset(TopicPartition(topic, $0), atOrAfter: moment) }
        }
        let ends = try (0..<count).map { try log.offsets(TopicPartition(topic, $0)).upperBound }
        if let number = Int64(text), number >= 0 {
            guard ends.contains(where: { number <= $0 }) else {
                throw APIError("bad-position", "'\(topic)' ends at offset \(ends.max() ?? 0), before \(number)")
            }
            return ends.map { min(number, $0) }
        }
        for part in text.split(separator: ",") {
            guard let (partition, offset) = place(part, topic) else {
                throw APIError(
                    "bad-position",
                    "'\(text)' is no position; give an offset, partition:offset pairs, a position such as \(topic)/0@5, an RFC 3339 time, beginning or end"
                )
            }
            guard partition < count else {
                throw APIError("bad-position", "'\(topic)' has the partitions 0 to \(count - 1), not \(partition)")
            }
            guard offset <= ends[partition] else {
                throw APIError(
                    "bad-position", "\(topic)/\(partition) ends at offset \(ends[partition]), before \(offset)")
            }
            result[partition] = offset
        }
        return result
    }

    /// `0:5`, or `topic/0@5` as answers print it.
    private func place(_ text: Substring, _ topic: String) -> (partition: Int, offset: Int64)? {
        if let position = Position(String(text)) {
            return position.topic == topic && position.partition >= 0 && position.offset >= 0
                ? (position.partition, position.offset) : nil
        }
        let numbers = text.split(separator: ":").compactMap { Int64($0) }
        guard numbers.count == 2, (0..<Int64(Int32.max)).contains(numbers[0]), numbers[1] >= 0 else { return nil }
        return (Int(numbers[0]), numbers[1])
    }

    private func page(_ request: WebRequest) throws -> WebResponse {
        .json(
            try readPage(
                topic: request.parameters["topic"] ?? "", from: request.query["from"] ?? "",
                limit: try number(request, "limit", 1...Limits.pageEvents) ?? 100,
                progress: request.query["progress"] == "true", asStored: request.query["stored"] == "true")
        )
    }

    /// As the newest version of its topic says it, or as it stands.
    private func data(
        _ event: StoredEvent, _ topic: String, asStored stored: Bool = false
    ) throws -> (data: [UInt8]?, version: Int?) {
        guard stored else { return try gateway.current(event, topic: topic) }
        return (
            try gateway.opened(event, topic: topic), event.header(EventHeader.dataVersion).flatMap { Int($0) }
        )
    }

    /// A page of events and where the next one begins.
    /// - Parameter stored: data in the version in which it was written, not lifted to the newest.
    package func readPage(
        topic: String, from: String, limit: Int, progress: Bool, asStored stored: Bool = false
    ) throws -> JSON {
        try require(topic)
        guard (1...Limits.pageEvents).contains(limit) else {
            throw APIError("bad-limit", "'limit' must lie in 1...\(Limits.pageEvents)")
        }
        var next = try start(from, topic)
        let type = gateway.topic(topic)?.defaultType
        var events: [JSON] = []
        var bytes = 0
        var isFull = false
        let isGoingOn = !from.isEmpty && from != "beginning"
        var gone: [String] = []
        for partition in next.indices where isGoingOn {
            // Told once: the next page begins behind it.
            let place = TopicPartition(topic, partition)
            let start = try log.offsets(place).lowerBound
            guard next[partition] < start else { continue }
            gone.append("\(place) from offset \(next[partition]) to \(start - 1)")
            next[partition] = start
        }
        for partition in next.indices where !isFull {
            do {
                try log.forEachEvent(TopicPartition(topic, partition), from: next[partition]) { event in
                    if !event.isProgress || progress {
                        bytes += event.dataCount
                        isFull = !events.isEmpty && bytes > Limits.pageBytes
                        guard !isFull else { return false }
                        events.append(
                            CloudEventsFormat.write(
                                event, try data(event, topic, asStored: stored), topic: topic, partition: partition,
                                defaultType: type))
                    }
                    next[partition] = event.offset + 1
                    isFull = events.count == limit
                    return !isFull
                }
            } catch let error as EventLogError where error.code == "rot" && !events.isEmpty {
                // What stands before the damage comes first; the next page begins there and says so.
                break
            }
        }
        let token = next.enumerated().map { "\($0):\($1)" }.joined(separator: ",")
        var members: [String: JSON] = ["events": .array(events), "next": .string(token)]
        // Whoever goes on where retention has been is told what it will not see.
        if !gone.isEmpty { members["trimmed"] = .array(gone.map { .string($0) }) }
        return .object(members)
    }

    /// Server-sent events; each id is the position to go on from, so Last-Event-ID resumes without gap or double.
    private func stream(_ request: WebRequest) async throws -> WebResponse {
        let topic = request.parameters["topic"] ?? ""
        try require(topic)
        // A moment is looked up in files, or asked of brokers.
        let begin = try await quick.run { [self] in
            try start(request.header("last-event-id") ?? request.query["from"], topic)
        }
        let admitted = followers.withLock { count in
            guard count < Limits.followers else { return false }
            count += 1
            return true
        }
        guard admitted else {
            throw APIError(
                "busy", "\(Limits.followers) followers are connected already; try again later", fault: .world,
                retriable: true)
        }
        let type = gateway.topic(topic)?.defaultType
        let follower: LogFollower
        do {
            let positions = Dictionary(
                uniqueKeysWithValues: begin.enumerated().map { (TopicPartition(topic, $0), $1) })
            follower = try await quick.run { [self] in try log.follow(positions) }
            await follower.take(pagesOf: Limits.followerBytes)
        } catch {
            followers.withLock { $0 -= 1 }
            throw error
        }
        let (stream, continuation) = AsyncStream<[UInt8]>.makeStream(bufferingPolicy: .bufferingOldest(2))
        let task = Task { [self] in
            defer {
                followers.withLock { $0 -= 1 }
                continuation.finish()
            }
            do {
                var next = begin
                while let (partition, from, batches) = try await follower.next() {
                    for batch in batches {
                        let known = next
                        let text: String = try await patiently {
                            try self.text(of: batch, partition, from: from, type: type, positions: known)
                        }
                        next[partition.partition] = batch.header.lastOffset + 1
                        if !text.isEmpty { await Self.hand([UInt8](text.utf8), to: continuation) }
                    }
                }
            } catch {
                // A damaged range ends the stream with its reason; where to go on stands in the message.
                let known = error as? any DescribedError
                let data = JSON.object([
                    "code": .string(known?.code ?? "internal"),
                    "message": .string(known?.message ?? "the log cannot be read"),
                ]).text
                await Self.hand([UInt8]("event: error\ndata: \(data)\n\n".utf8), to: continuation)
            }
        }
        continuation.onTermination = { _ in task.cancel() }
        return WebResponse(contentType: "text/event-stream", body: .stream(stream))
    }

    /// A follower that is slower than the log waits here: nothing is dropped and nothing piles up.
    private static func hand(_ piece: [UInt8], to continuation: AsyncStream<[UInt8]>.Continuation) async {
        while !Task.isCancelled {
            guard case .dropped = continuation.yield(piece) else { return }
            try? await Task.sleep(for: .milliseconds(20))
        }
    }

    /// Waits while other requests have the threads.
    private func patiently<R: Sendable>(_ body: @escaping @Sendable () throws -> R) async throws -> R {
        while true {
            do {
                return try await quick.run(body)
            } catch let error as BaseError where error.code == "busy" {
                try await Task.sleep(for: .milliseconds(20))
            }
        }
    }

    /// A batch's events from an offset on, each with the position from which to go on behind it.
    private func text(
        of batch: RecordBatch, _ place: TopicPartition, from: Int64, type: String?, positions: [Int64]
    ) throws -> String {
        var next = positions
        var text = ""
        for index in batch.records.indices where batch.records[index].offset >= from {
            let event = StoredEvent(batch: batch, index: index)
            next[place.partition] = event.offset + 1
            guard !event.isProgress else { continue }
            let id = next.enumerated().map { "\($0):\($1)" }.joined(separator: ",")
            let data = CloudEventsFormat.write(
                event, try data(event, place.topic), topic: place.topic, partition: place.partition, defaultType: type
            ).text
            text += "id: \(id)\ndata: \(data)\n\n"
        }
        return text
    }
}

/// The one member of a body that asks for something no web page may ask for: its content type makes a browser ask first,
/// and be refused.
private func member(_ name: String, _ meaning: String, of request: WebRequest) throws -> String {
    guard request.header("content-type")?.hasPrefix("application/json") == true else {
        throw APIError("bad-content-type", "this is asked for with Content-Type: application/json")
    }
    guard let value = (try? JSON(parsing: request.body))?[name]?.string, !value.isEmpty else {
        throw APIError("bad-json", "the body must be {\"\(name)\": \(meaning)}")
    }
    return value
}

/// A whole number of the query; nil when it is absent.
private func number(_ request: WebRequest, _ name: String, _ range: ClosedRange<Int>) throws -> Int? {
    guard let text = request.query[name] else { return nil }
    guard let number = Int(text), range.contains(number) else {
        throw APIError("bad-\(name)", "'\(name)' must be a whole number in \(range), not '\(text)'")
    }
    return number
}
