import Base
import CPlatform
import EventLog
@preconcurrency import Foundation
import RecordFormat
import Testing

@Suite struct EmbeddedLogTests {
    static func open(_ path: String, segmentSize: Int64 = 64 << 10, readOnly: Bool = false) throws -> EmbeddedLog {
        var options = EmbeddedLog.Options()
        options.segmentSize = segmentSize
        options.readOnly = readOnly
        options.wallClock = { Instant(milliseconds: 1) }
        let log = try EmbeddedLog.open(path, options: options)
        try log.declare(TopicLayout(name: "a", partitions: 1))
        try log.declare(TopicLayout(name: "b", partitions: 3))
        return log
    }

    static func event(_ id: String, _ time: Int64 = 0, size: Int = 100) -> NewEvent {
        NewEvent(
            id: id, source: "test", type: "t", time: Instant(milliseconds: time), key: [UInt8](id.utf8),
            data: [UInt8]("{\"n\":\"\(id)\(String(repeating: "x", count: size))\"}".utf8))
    }

    static func contents(_ log: EmbeddedLog) throws -> [String: [String]] {
        var result: [String: [String]] = [:]
        for layout in log.topics {
            for partition in 0..<layout.partitions {
                let place = TopicPartition(layout.name, partition)
                var next: Int64 = 0
                try log.forEachEvent(place) { event in
                    #expect(event.offset == next)
                    next += 1
                    result[place.description, default: []].append(event.id)
                    return true
                }
            }
        }
        return result
    }

    /// Random appends, duplicates, rolls and reopenings against a model in memory; a torn tail now and then.
    @Test(arguments: 0..<24) func behavesLikeTheModel(seed: Int) throws {
        let scratch = try ScratchDirectory()
        var random = SeededRandom(seed: UInt64(seed) &* 77 &+ 1)
        var log = try Self.open(scratch.path)
        var model: [String: [String]] = [:]
        var places: [String: String] = [:]
        var made = 0
        for _ in 0..<60 {
            switch Int.random(in: 0..<12, using: &random) {
            case 0:
                log.close()
                log = try Self.open(scratch.path)
            case 1:
                // What was never acknowledged may be cut anywhere; here it is garbage behind the end.
                log.close()
                let segment = try #require(
                    try FileManager.default.contentsOfDirectory(atPath: scratch.path).filter { $0.hasSuffix(".wal") }
                        .max())
                let handle = try #require(FileHandle(forWritingAtPath: scratch.path + "/" + segment))
                try handle.seekToEnd()
                try handle.write(
                    contentsOf: Data(
                        (0..<Int.random(in: 1...200, using: &random)).map { _ in
                            UInt8.random(in: 0...255, using: &random)
                        }))
                try handle.close()
                log = try Self.open(scratch.path)
                #expect(log.recovery.truncatedBytes > 0 && log.recovery.damaged.isEmpty)
            case 2:
                log.close()
                let segments = try FileManager.default.subpathsOfDirectory(atPath: scratch.path).filter {
                    $0.hasSuffix(".index") || $0.hasSuffix(".ids")
                }.sorted()
                if let victim = segments.randomElement(using: &random) {
                    try FileManager.default.removeItem(atPath: scratch.path + "/" + victim)
                }
                log = try Self.open(scratch.path)
            default:
                var events: [(topic: String, partition: Int?, event: NewEvent)] = []
                for _ in 0..<Int.random(in: 1...40, using: &random) {
                    let repeated = made > 0 && Int.random(in: 0..<5, using: &random) == 0
                    let id = "e\(repeated ? Int.random(in: 0..<made, using: &random) : made)"
                    if !repeated { made += 1 }
                    events.append(
                        (
                            Int(id.dropFirst())! % 2 == 0 ? "a" : "b", nil,
                            Self.event(id, size: Int.random(in: 0..<300, using: &random))
                        ))
                }
                let receipt = try log.append(LogAppend(principal: "p", events: events))
                for (offered, answer) in zip(events, receipt.events) {
                    let key = offered.topic + offered.event.id
                    #expect(answer.duplicate == (places[key] != nil))
                    if let known = places[key] {
                        #expect(known == answer.position.description)
                    } else {
                        places[key] = answer.position.description
                        model["\(answer.position.topic)/\(answer.position.partition)", default: []].append(
                            offered.event.id)
                    }
                }
            }
        }
        #expect(try Self.contents(log) == model)
        let check = try log.verify()
        #expect(check.isIntact && check.events == UInt64(places.count))
        log.close()
    }

    @Test func damageBelowTheMarkIsNamedAndTheRestIsServed() throws {
        let scratch = try ScratchDirectory()
        var log = try Self.open(scratch.path, segmentSize: 1 << 30)
        for group in 0..<10 {
            _ = try log.append(
                LogAppend(principal: "p", events: (0..<50).map { ("a", nil, Self.event("e\(group)-\($0)")) }))
        }
        log.close()
        let path = Self.path(scratch.path)
        var bytes = [UInt8](try #require(FileManager.default.contents(atPath: path)))
        bytes[bytes.count / 2] ^= 0x40
        try Data(bytes).write(to: URL(filePath: path))
        // With its index the damage is found on reading, without it when the segment is scanned; the answer is the same.
        for keepsIndex in [true, false] {
            if !keepsIndex { try FileManager.default.removeItem(atPath: EmbeddedLogTests.indexPath(path)) }
            log = try Self.open(scratch.path, segmentSize: 1 << 30)
            let check = try log.verify()
            #expect(check.damaged.count == 1 && check.rewritten.isEmpty)
            let lost = try #require(check.damaged.first).sequences
            #expect(lost.count == 50)
            #expect(keepsIndex || log.recovery.damaged.count == 1)
            #expect(log.recovery.truncatedBytes == 0)
            var readable = 0
            for start in stride(from: Int64(0), to: 500, by: 50) {
                let found = errorCode {
                    readable += try log.read(TopicPartition("a", 0), from: start, maxBytes: 1).first?.records.count ?? 0
                }
                #expect((found == nil) != lost.contains(UInt64(start)))
                #expect(found == nil || found == "rot")
            }
            #expect(readable == 450)
            let receipt = try log.append(
                LogAppend(principal: "p", events: [("a", nil, Self.event("after-\(keepsIndex)"))]))
            #expect(receipt.events[0].position.offset == (keepsIndex ? 500 : 501))
            log.close()
        }
    }

    @Test func damageOfTheLastFrameIsRotAndNoTornTail() throws {
        let scratch = try ScratchDirectory()
        var log = try Self.open(scratch.path)
        for number in 0..<3 {
            _ = try log.append(LogAppend(principal: "p", events: [("a", nil, Self.event("e\(number)"))]))
        }
        log.close()
        let path = Self.path(scratch.path)
        try FileManager.default.removeItem(atPath: Self.indexPath(path))
        var bytes = [UInt8](try #require(FileManager.default.contents(atPath: path)))
        bytes[bytes.count - 10] ^= 1
        try Data(bytes).write(to: URL(filePath: path))
        log = try Self.open(scratch.path)
        #expect(log.recovery.truncatedBytes == 0 && log.recovery.damaged.first?.sequences == 2..<3)
        // The lost event's offset is not given to another.
        let receipt = try log.append(LogAppend(principal: "p", events: [("a", nil, Self.event("next"))]))
        #expect(receipt.events[0].position.offset == 3 && receipt.events[0].position.sequence == 3)
        log.close()
    }

    static func path(_ directory: String) -> String { directory + "/00000000000000000000.wal" }
    static func indexPath(_ segment: String) -> String { String(segment.dropLast(4)) + ".index" }

    /// A record changed with every checksum made good again is found by the hash chain.
    @Test func rewritingHistoryIsFound() throws {
        let scratch = try ScratchDirectory()
        var log = try Self.open(scratch.path)
        for number in 0..<5 {
            _ = try log.append(LogAppend(principal: "p", events: [("a", nil, Self.event("e\(number)", size: 5))]))
        }
        log.close()
        try rewrite(Self.path(scratch.path), frame: 2) { text in text.replacingOccurrences(of: "e2", with: "e9") }
        log = try Self.open(scratch.path)
        let check = try log.verify()
        #expect(check.damaged.isEmpty && check.rewritten.count == 1)
        #expect(check.rewritten.first?.sequences == 2..<3 && check.rewritten.first?.ranges.first?.offsets == 2..<3)
        log.close()
    }

    /// The mark says how far the log was: what is missing before it is named and its offsets are not given again.
    @Test func aLogShorterThanItsMarkSaysSo() throws {
        let scratch = try ScratchDirectory()
        var log = try Self.open(scratch.path)
        for number in 0..<4 {
            _ = try log.append(LogAppend(principal: "p", events: [("a", nil, Self.event("e\(number)", size: 5))]))
        }
        log.close()
        let path = Self.path(scratch.path)
        let bytes = [UInt8](try #require(FileManager.default.contents(atPath: path)))
        let frame = bytes.count / 4
        try Data(bytes.prefix(frame * 2)).write(to: URL(filePath: path))
        try FileManager.default.removeItem(atPath: Self.indexPath(path))
        log = try Self.open(scratch.path)
        #expect(log.recovery.damaged.first?.sequences == 2..<4 && log.recovery.truncatedBytes == 0)
        let receipt = try log.append(LogAppend(principal: "p", events: [("a", nil, Self.event("next"))]))
        #expect(receipt.events[0].position.sequence == 4 && receipt.events[0].position.offset >= 4)
        log.close()
        // Also when there is something behind it, and when it has moved.
        for _ in 0..<2 {
            log = try Self.open(scratch.path)
            #expect(log.recovery.damaged.map(\.sequences) == [2..<4])
            #expect(try log.verify().damaged.map(\.sequences) == [2..<4])
            log.close()
            log = try Self.open(scratch.path, segmentSize: 100)
            _ = try log.append(LogAppend(principal: "p", events: [("a", nil, Self.event("\(log.eventCount)"))]))
            try log.maintain()
            log.close()
        }
    }

    /// After a clean stop the index tells what stood at the end, also without the mark: in which partitions events are
    /// missing, and in which none.
    @Test(arguments: ["cut", "cut, and no mark", "gone"]) func aCutTailIsLostByPartition(how: String) throws {
        let (hasMark, isGone) = (how != "cut, and no mark", how == "gone")
        let scratch = try ScratchDirectory()
        let z = TopicLayout(name: "z", partitions: 1)
        var log = try Self.open(scratch.path)
        try log.declare(z)
        for number in 0..<6 {
            let topic = number < 4 ? "a" : "z"
            _ = try log.append(LogAppend(principal: "p", events: [(topic, nil, Self.event("e\(number)", size: 5))]))
        }
        log.close()
        let path = Self.path(scratch.path)
        let bytes = [UInt8](try #require(FileManager.default.contents(atPath: path)))
        if isGone {
            try FileManager.default.removeItem(atPath: path)
        } else {
            try Data(bytes.prefix(bytes.count - 40)).write(to: URL(filePath: path))
        }
        if !hasMark { try FileManager.default.removeItem(atPath: scratch.path + "/durable.mark") }
        for round in 0..<2 {
            log = try Self.open(scratch.path)
            try log.declare(z)
            #expect((log.recovery.mark == .missing) == (!hasMark && round == 0))
            #expect(
                log.recovery.damaged.map(\.sequences) == [isGone ? 0..<6 : 5..<6])
            #expect(try !log.verify().isIntact)
            #expect(try log.offsets(TopicPartition("z", 0)).upperBound >= 2)
            if !isGone {
                var kept = 0
                try log.forEachEvent(TopicPartition("a", 0)) { _ in
                    kept += 1
                    return true
                }
                #expect(kept == 4)
                #expect(try log.read(TopicPartition("z", 0), from: 0, maxBytes: 1 << 20).count == 1)
            }
            #expect(throws: EventLogError.self) { try log.read(TopicPartition("z", 0), from: 1, maxBytes: 1 << 20) }
            let receipt = try log.append(LogAppend(principal: "p", events: [("z", nil, Self.event("r\(round)"))]))
            #expect(receipt.events[0].position.sequence == UInt64(6 + round))
            log.close()
        }
    }

    /// Times are in the digests, and what a batch says of itself beside its records is compared with them.
    @Test(arguments: ["base", "max", "attributes", "producer"], [false, true])
    func rewritingATimeIsFound(what: String, isMoved: Bool) throws {
        let scratch = try ScratchDirectory()
        var log = try Self.open(scratch.path, segmentSize: isMoved ? 100 : 64 << 10)
        for number in 0..<5 {
            _ = try log.append(
                LogAppend(principal: "p", events: [("a", nil, Self.event("e\(number)", Int64(number), size: 5))]))
        }
        if isMoved { try log.maintain() }
        log.close()
        let path = isMoved ? scratch.path + "/a-0/00000000000000000000.log" : Self.path(scratch.path)
        var bytes = [UInt8](try #require(FileManager.default.contents(atPath: path)))
        let start: Int
        let size: Int
        if isMoved {
            (start, size) = (0, try bytes.withUnsafeBytes { try RecordBatchHeader($0) }.size)
        } else {
            let found = try frame(bytes, 0)
            (start, size) = (found.batches[0].start, found.batches[0].size)
        }
        var batch = Array(bytes[start..<start + size])
        // Offsets in a RecordBatch v2: attributes 21, base timestamp 27, max timestamp 35, producer id 43.
        batch[["base": 33, "max": 40, "attributes": 22, "producer": 50][what] ?? 0] ^= 8
        RecordBatchLayout.seal(&batch)
        bytes.replaceSubrange(start..<start + size, with: batch)
        try Data(bytes).write(to: URL(filePath: path))
        log = try Self.open(scratch.path)
        let check = try log.verify()
        // Who sent a batch stands in its envelope; a moved batch is made of many and says nothing of it.
        #expect(check.damaged.isEmpty && check.rewritten.isEmpty == (what == "producer" && isMoved), "\(check)")
        log.close()
    }

    /// The last frame rewritten: the mark holds the hash of what was there.
    @Test func rewritingTheLastFrameIsFound() throws {
        let scratch = try ScratchDirectory()
        var log = try Self.open(scratch.path)
        for number in 0..<3 {
            _ = try log.append(LogAppend(principal: "p", events: [("a", nil, Self.event("e\(number)", size: 5))]))
        }
        log.close()
        try rewrite(Self.path(scratch.path), frame: 2) { $0.replacingOccurrences(of: "e2", with: "e9") }
        try FileManager.default.removeItem(atPath: Self.indexPath(Self.path(scratch.path)))
        for _ in 0..<2 {
            log = try Self.open(scratch.path)
            #expect(try log.verify().rewritten.first?.sequences == 2..<3)
            log.close()
        }
    }

    @Test func aFollowerDoesNotKeepTheLogFromClosing() async throws {
        let scratch = try ScratchDirectory()
        let log = try Self.open(scratch.path)
        let follower = Task {
            var seen = 0
            for await _ in log.changes() { seen += 1 }
            return seen
        }
        _ = try await log.appendAndWait(LogAppend(principal: "p", events: [("a", nil, Self.event("e"))]))
        try await Task.sleep(for: .milliseconds(50))
        log.close()
        #expect(await follower.value > 0)
    }

    @Test func refusalsAreTyped() throws {
        let scratch = try ScratchDirectory()
        let log = try Self.open(scratch.path)
        func append(_ topic: String, _ event: NewEvent, partition: Int? = nil) throws {
            _ = try log.append(LogAppend(principal: "p", events: [(topic, partition, event)]))
        }
        #expect(errorCode { try append("nope", Self.event("x")) } == "unknown-topic")
        #expect(errorCode { try append("b", Self.event("x"), partition: 3) } == "unknown-partition")
        #expect(errorCode { try append("a", Self.event("")) } == "bad-id")
        #expect(errorCode { try append("a", Self.event("big", size: Limits.eventData)) } == "event-too-large")
        #expect(errorCode { try log.declare(TopicLayout(name: "b", partitions: 4)) } == "topic-conflict")
        #expect(errorCode { try log.declare(TopicLayout(name: "ü", partitions: 1)) } == "bad-topic")
        #expect(errorCode { _ = try Self.open(scratch.path) } == "locked")
        log.close()
        #expect(errorCode { try append("a", Self.event("x")) } == "log-stopped")
    }

    /// Many producers at once: every acknowledged event stands exactly where its receipt says.
    @Test func producersDoNotDisturbEachOther() async throws {
        let scratch = try ScratchDirectory()
        let log = try Self.open(scratch.path, segmentSize: 32 << 10)
        let receipts = try await withThrowingTaskGroup(of: [(String, Position)].self) { group in
            for producer in 0..<16 {
                group.addTask {
                    var mine: [(String, Position)] = []
                    for number in 0..<40 {
                        let id = "p\(producer)-\(number)"
                        let answer = try await log.appendAndWait(
                            LogAppend(principal: "p", events: [("b", nil, Self.event(id))]))
                        mine.append((id, answer.events[0].position))
                    }
                    return mine
                }
            }
            return try await group.reduce(into: []) { $0 += $1 }
        }
        let contents = try Self.contents(log)
        for (id, position) in receipts { #expect(contents["b/\(position.partition)"]?[Int(position.offset)] == id) }
        #expect(Set(receipts.compactMap(\.1.sequence)).count == 640)
        #expect(try log.verify().isIntact)
        log.close()
    }

    @Test func aFullDiskStopsWritesAndReadsGoOn() throws {
        let scratch = try ScratchDirectory()
        let mount = scratch.path + "/small"
        try FileManager.default.createDirectory(atPath: mount, withIntermediateDirectories: true)
        guard getuid() == 0, try run("/bin/mount", ["-t", "tmpfs", "-o", "size=2m", "tmpfs", mount]).status == 0 else {
            print("➜ skipped: a full disk needs the right to mount a tmpfs")
            return
        }
        defer { _ = try? run("/bin/umount", [mount]) }
        var log = try Self.open(mount, segmentSize: 1 << 30)
        var acknowledged = 0
        var random = SeededRandom(seed: 2)
        var code: String?
        while code == nil, acknowledged < 1000 {
            // Random bytes, so that LZ4 does not make room.
            let noise = (0..<20_000).map { _ in UInt8.random(in: 0x20...0x7E, using: &random) }.filter {
                $0 != 0x22 && $0 != 0x5C
            }
            let data = [UInt8]("{\"n\":\"".utf8) + noise + [UInt8]("\"}".utf8)
            let event = NewEvent(
                id: "e\(acknowledged)", source: "t", type: "t", time: Instant(milliseconds: 0), data: data)
            code = errorCode { _ = try log.append(LogAppend(principal: "p", events: [("a", nil, event)])) }
            if code == nil { acknowledged += 1 }
        }
        #expect(code == "log-stopped" && acknowledged > 10)
        #expect(log.statistics.stopped?.description.contains("disk-full") == true)
        #expect(try Self.contents(log)["a/0"]?.count == acknowledged)
        log.close()
        try run("/bin/mount", ["-o", "remount,size=16m", mount])
        log = try Self.open(mount, segmentSize: 1 << 30)
        #expect(try Self.contents(log)["a/0"]?.count == acknowledged)
        _ = try log.append(LogAppend(principal: "p", events: [("a", nil, Self.event("after"))]))
        #expect(try log.verify().isIntact)
        log.close()
    }
}

/// Changes the text of a frame's records and mends batch and frame checksums, as somebody who wants to lie would.
func rewrite(_ path: String, frame number: Int, _ change: (String) -> String) throws {
    var bytes = [UInt8](FileManager.default.contents(atPath: path) ?? Data())
    var start = 0
    for _ in 0..<number { start += try frame(bytes, start).size }
    let found = try frame(bytes, start)
    let batch = found.batches[0]
    let range = start + batch.start..<start + batch.start + batch.size
    var content = Array(bytes[range])
    let body = String(decoding: content[RecordBatchLayout.headerSize...], as: Unicode.ASCII.self)
    let changed = change(body)
    guard changed != body, changed.utf8.count == body.utf8.count else {
        throw EventLogError("test", "the change must keep the length")
    }
    var place = RecordBatchLayout.headerSize
    for (old, new) in zip(body.utf8, changed.utf8) {
        if old != new { content[place] = new }
        place += 1
    }
    RecordBatchLayout.seal(&content)
    bytes.replaceSubrange(range, with: content)
    var whole = Array(bytes[start..<start + found.size])
    // The digest of the records ends the entry of the first batch in the table.
    let made = try content.withUnsafeBytes { try RecordBatch($0) }
    let digest = RecordBatchLayout.digest(made.header.baseTimestamp, made.payload)
    let place32 =
        96 + found.principal.utf8.count + found.keyID.utf8.count + 2 + found.batches[0].partition.topic.utf8.count + 36
    whole.replaceSubrange(place32..<place32 + 32, with: digest.bytes)
    let crc = whole.withUnsafeBytes { headrace_crc32c(0, $0.baseAddress! + 16, found.envelopeSize - 16) }
    for index in 0..<4 { whole[12 + index] = UInt8(truncatingIfNeeded: crc >> UInt32(8 * index)) }
    bytes.replaceSubrange(start..<start + found.size, with: whole)
    try Data(bytes).write(to: URL(filePath: path))
}

private func frame(_ bytes: [UInt8], _ start: Int) throws -> LogFrame.Description {
    try Array(bytes[start...]).withUnsafeBytes { try LogFrame.decode($0) }
}
