import Base
import EventLog
import Foundation
import Gateway
import RecordFormat
import Streams

/// What could not be taken in or folded, and the mending of it.
extension Node {
    static let retries = "headrace.retries"

    /// Where letters stand: the gateway's, those of the workspace's topology, and those of every stream there ever was.
    private var letterPlaces: [TopicPartition] {
        let streams = registry.all(StreamTopology.kind).map { SideTopics(of: $0.definition.name).unfolded }
        return ([Gateway.deadLetterTopic, SideTopics.platform.unfolded] + streams).flatMap { topic in
            (0..<log.partitions(of: topic)).map { TopicPartition(topic, $0) }
        }
    }

    /// What became of a letter so far.
    private struct History {
        var attempts = 0
        var isHealed = false
    }

    /// A letter as it stands in the log, with what was personal in it opened where its key is there.
    private struct Letter {
        let position: Position
        let time: Instant
        let data: JSON

        /// The topic of the event that the letter is about.
        var topic: String {
            if let topic = data["topic"]?.string { return topic }
            if let place = data["position"]?.string.flatMap({ Position($0) }) { return place.topic }
            return data["table"]?.string ?? data["stage"]?.string ?? ""
        }
        /// Codes of the fold stand in brackets at the end of its reasons.
        var code: String {
            if let code = data["code"]?.string { return code }
            let reason = data["reason"]?.string ?? ""
            guard let open = reason.lastIndex(of: "["), let close = reason.lastIndex(of: "]"), open < close else {
                return "failed"
            }
            return String(reason[reason.index(after: open)..<close])
        }
    }

    private func letter(_ event: StoredEvent, _ place: TopicPartition) throws -> Letter? {
        guard !event.isProgress, let bytes = try gateway.opened(event, topic: place.topic),
            let data = try? JSON(parsing: bytes)
        else { return nil }
        return Letter(
            position: Position(
                topic: place.topic, partition: place.partition, offset: event.offset, sequence: nil),
            time: event.time, data: data)
    }

    private func histories() throws -> [String: History] {
        var found: [String: History] = [:]
        try log.forEachEvent(TopicPartition(Node.retries, 0)) { event in
            guard let data = event.data.flatMap({ try? JSON(parsing: $0) }), let place = data["letter"]?.string else {
                return true
            }
            found[place, default: History()].attempts += 1
            if ["accepted", "duplicate"].contains(data["status"]?.string) { found[place]?.isHealed = true }
            return true
        }
        return found
    }

    /// The newest letters, oldest of them first.
    /// - Parameter all: those that were healed as well.
    package func letters(topic: String?, code: String?, all: Bool, limit: Int) throws -> JSON {
        let histories = try histories()
        var found: [(letter: Letter, history: History)] = []
        var more = false
        for source in letterPlaces {
            var here: [(letter: Letter, history: History)] = []
            try log.forEachEvent(source) { event in
                guard let letter = try letter(event, source) else { return true }
                let history = histories[letter.position.description] ?? History()
                guard all || !history.isHealed, topic == nil || letter.topic == topic,
                    code == nil || letter.code == code
                else { return true }
                here.append((letter, history))
                if here.count > 2 * limit {
                    here.removeFirst(here.count - limit)
                    more = true
                }
                return true
            }
            more = more || here.count > limit
            found += here.suffix(limit)
        }
        let list = found.map { letter, history in
            JSON.object([
                "position": .string(letter.position.description), "time": .string(letter.time.description),
                "topic": .string(letter.topic), "id": letter.data["id"] ?? .null, "code": .string(letter.code),
                "reason": letter.data["reason"] ?? .null, "attempts": .int(Int64(history.attempts)),
                "healed": .bool(history.isHealed),
            ])
        }
        return .object(["letters": .array(list), "more": .bool(more)])
    }

    /// A letter as a whole.
    package func letter(_ position: String) throws -> JSON {
        let letter = try find(position)
        let history = try histories()[position] ?? History()
        return .object([
            "position": .string(position), "time": .string(letter.time.description), "topic": .string(letter.topic),
            "code": .string(letter.code), "attempts": .int(Int64(history.attempts)), "healed": .bool(history.isHealed),
            "letter": letter.data,
        ])
    }

    private func find(_ text: String) throws -> Letter {
        var found: Letter?
        if let place = Position(text), letterPlaces.contains(TopicPartition(place.topic, place.partition)) {
            let partition = TopicPartition(place.topic, place.partition)
            try log.forEachEvent(partition, from: place.offset, to: place.offset + 1) { event in
                found = try letter(event, partition)
                return false
            }
        }
        guard let found else {
            throw NodeError(
                "unknown-letter",
                "there is no letter '\(text)'; 'headrace dlq list' shows the positions of those there are")
        }
        return found
    }

    /// How letters are brought in again.
    package struct Retry: Sendable {
        /// Positions of the letters; empty for all that were not healed yet.
        package var positions: [String] = []
        package var topic: String?
        package var code: String?
        /// Dates the events now: with their own time they may be late by now.
        package var isNow = false
        /// Takes the place of the refused data; for one letter.
        package var data: JSON?

        package init() {}
    }

    /// Publishes what letters are about once more, through the same checks as at first. What becomes of each is logged.
    package func retry(_ retry: Retry) async throws -> JSON {
        guard retry.data == nil || retry.positions.count == 1 else {
            throw NodeError("bad-use", "other data can be given for one letter at a time")
        }
        let planned = try await letterWork.run { [self] in try plan(retry) }
        var answers: [JSON] = []
        for (position, attempt, made) in planned {
            var members: [String: JSON] = ["letter": .string(position), "attempt": .int(Int64(attempt))]
            switch made {
            case .failure(let error):
                members["status"] = "refused"
                members["code"] = .string(error.code)
                members["message"] = .string(error.message)
            case .success(let (topic, event)):
                switch try await gateway.publish([(topic, event)], principal: "dlq").first {
                case .accepted(let receipt, _)?:
                    members["status"] = receipt.duplicate ? "duplicate" : "accepted"
                    members["position"] = .string(receipt.position.description)
                case .refused(let error)?:
                    members["status"] = "refused"
                    members["code"] = .string(error.code)
                    members["message"] = .string(error.message)
                case nil: continue
                }
            }
            let answer = JSON.object(members)
            let note = NewEvent(
                id: "retry:\(position):\(attempt)", source: "headrace:/node", type: "letter.retried",
                time: Instant.wallClock(), data: answer.canonical)
            _ = try await log.appendAndWait(LogAppend(principal: "node", events: [(Node.retries, 0, note)]))
            answers.append(answer)
        }
        return .object(["retried": .array(answers)])
    }

    package func retryLetters(_ request: JSON) async throws -> JSON {
        var retry = Retry()
        retry.positions = (request["positions"]?.array ?? []).compactMap(\.string)
        guard !retry.positions.isEmpty || request["all"]?.bool == true else {
            throw NodeError("bad-use", "name letters in 'positions', or say \"all\": true")
        }
        retry.topic = request["topic"]?.string
        retry.code = request["code"]?.string
        retry.isNow = request["now"]?.bool ?? false
        retry.data = request["data"]
        return try await self.retry(retry)
    }

    /// Letters that one request brings in.
    private static let retryLimit = 1000

    private typealias Planned = (
        position: String, attempt: Int, made: Result<(topic: String, event: NewEvent), NodeError>
    )

    private func plan(_ retry: Retry) throws -> [Planned] {
        var positions = retry.positions
        if positions.isEmpty {
            let open = try letters(topic: retry.topic, code: retry.code, all: false, limit: Node.retryLimit)
            positions = (open["letters"]?.array ?? []).compactMap { $0["position"]?.string }
        }
        guard positions.count <= Node.retryLimit else {
            throw NodeError("bad-use", "at most \(Node.retryLimit) letters are brought in at a time")
        }
        let histories = try histories()
        return try positions.map { position in
            let letter = try find(position)
            let attempt = (histories[position]?.attempts ?? 0) + 1
            do throws(NodeError) {
                return (position, attempt, .success(try event(of: letter, retry, attempt)))
            } catch {
                return (position, attempt, .failure(error))
            }
        }
    }

    /// The event that a letter is about, as it is published again.
    private func event(
        of letter: Letter, _ retry: Retry, _ attempt: Int
    ) throws(NodeError) -> (topic: String, event: NewEvent) {
        let data = letter.data
        let now: Instant? = retry.isNow ? Instant.wallClock() : nil
        if letter.position.topic != Gateway.deadLetterTopic {
            return try unfolded(letter, retry, attempt, now)
        }
        guard let topic = data["topic"]?.string, let id = data["id"]?.string, let type = data["type"]?.string else {
            throw NodeError(
                "not-retriable", "the letter is about a row of a file (\(data["place"]?.text ?? "")); mend the file")
        }
        var raw: [UInt8]?
        if let other = retry.data {
            raw = other.canonical
        } else if data["truncated"]?.bool == true {
            throw NodeError("not-retriable", "the letter kept a part of the data only; give all of it with --data")
        } else if let hex = data["rawHex"]?.string {
            raw = [UInt8](hex: hex)
        } else {
            raw = data["raw"]?.string.map { [UInt8]($0.utf8) }
        }
        guard let raw else {
            throw NodeError("not-retriable", "what was refused cannot be read any more; give it with --data")
        }
        return (
            topic,
            NewEvent(
                id: id, source: data["source"]?.string ?? "headrace:/dlq", type: type,
                time: now ?? data["time"]?.string.flatMap { Instant($0) } ?? letter.time,
                key: data["partitionkey"]?.string.map { [UInt8]($0.utf8) }, subject: data["subject"]?.string,
                data: raw, causation: letter.position.description,
                extensions: version(
                    retry.data == nil ? data["dataversion"]?.string ?? (isVersioned(topic) ? "1" : nil) : nil))
        )
    }

    private func isVersioned(_ topic: String) -> Bool { (gateway.topic(topic)?.upcasting.version ?? 1) > 1 }

    /// Data that is published as it was keeps the version that it is of; other data is of the newest.
    private func version(_ text: String?) -> [(name: String, value: String)] {
        text.map { [(EventHeader.dataVersion, $0)] } ?? []
    }

    /// An event that stands in the log and could not be folded: a copy of it under an id of its own.
    private func unfolded(
        _ letter: Letter, _ retry: Retry, _ attempt: Int, _ now: Instant?
    ) throws(NodeError) -> (topic: String, event: NewEvent) {
        guard letter.code != "newer-version" else {
            throw NodeError(
                "not-retriable",
                "the event is newer than what this fold reads, and a copy would be as well; streams that read the newer version have folded it"
            )
        }
        guard let place = letter.data["position"]?.string.flatMap({ Position($0) }) else {
            throw NodeError(
                "not-retriable",
                "the letter is about something that the fold itself made; mend what it was made of instead")
        }
        var found: (topic: String, event: NewEvent)?
        do {
            try log.forEachEvent(place.partitioned, from: place.offset, to: place.offset + 1) { event in
                let data = try gateway.opened(event, topic: place.topic)
                let stated = event.header(EventHeader.dataVersion) ?? (isVersioned(place.topic) ? "1" : nil)
                found = (
                    place.topic,
                    NewEvent(
                        id: "\(event.id)#retry\(attempt)", source: event.header(EventHeader.source) ?? "headrace:/dlq",
                        type: event.type, time: now ?? event.time, key: event.key,
                        subject: event.header(EventHeader.subject), data: retry.data?.canonical ?? data,
                        causation: letter.position.description,
                        extensions: version(retry.data == nil ? stated : nil))
                )
                return false
            }
        } catch {
            throw NodeError("not-retriable", "the event at \(place) cannot be read", cause: error, fault: .world)
        }
        guard let found else {
            throw NodeError("not-retriable", "the event at \(place) is no longer in the log; give it with publish")
        }
        return found
    }
}

extension Position {
    /// Where it stands, without how far.
    fileprivate var partitioned: TopicPartition { TopicPartition(topic, partition) }
}
