import Base
import EventLog
import Foundation
import RecordFormat
import Testing

/// Rewriting, retention and compaction of the embedded log, driven by hand.
@Suite struct MaintenanceTests {
    /// A log without threads of its own upkeep: small files, and a clock that the test moves.
    final class Fixture {
        let scratch: ScratchDirectory
        let clock = Monitor<Int64>(1_000_000)
        var log: EmbeddedLog

        init() throws {
            scratch = try ScratchDirectory()
            log = try Fixture.open(scratch.path, clock)
        }

        static func open(_ path: String, _ clock: Monitor<Int64>) throws -> EmbeddedLog {
            var options = EmbeddedLog.Options()
            options.segmentSize = 4000
            options.partitionFileSize = 3000
            options.rewriting.joined = 2000
            options.hasThreads = false
            options.wallClock = { Instant(milliseconds: clock.withLock { $0 }) }
            return try EmbeddedLog.open(path, options: options)
        }

        func reopen(_ layouts: [TopicLayout]) throws {
            log.close()
            log = try Fixture.open(scratch.path, clock)
            for layout in layouts { try log.declare(layout) }
        }

        /// Appends and commits.
        func add(_ topic: String, _ events: [(key: String?, data: String?)], prefix: String) throws {
            for (number, (key, data)) in events.enumerated() {
                let event = NewEvent(
                    id: "\(prefix)\(number)", source: "s", type: "t", time: Instant(milliseconds: Int64(number)),
                    key: key.map { [UInt8]($0.utf8) }, data: data.map { [UInt8]($0.utf8) })
                log.append(LogAppend(principal: "p", events: [(topic, 0, event)])) { _ in }
                if number % 7 == 6 { log.commitReady() }
            }
            while log.commitReady() {}
        }

        func contents(_ topic: String) throws -> [(offset: Int64, key: String, data: String?, digest: Digest)] {
            var result: [(offset: Int64, key: String, data: String?, digest: Digest)] = []
            try log.forEachEvent(TopicPartition(topic, 0)) { event in
                result.append(
                    (
                        event.offset, event.key.map { String(decoding: $0, as: UTF8.self) } ?? "",
                        event.data.map { String(decoding: $0, as: UTF8.self) }, event.digest
                    ))
                return true
            }
            return result
        }

        /// Enough of another topic that everything before it is sealed.
        func seal() throws {
            try log.declare(TopicLayout(name: "filler", partitions: 1))
            let noise = String(repeating: "0123456789abcdef", count: 20)
            try add(
                "filler", (0..<40).map { (nil, "\($0) \($0 * 7919) \(noise.shuffled(seed: $0))") },
                prefix: "f\(clock.withLock { $0 })-")
            try log.maintain()
        }

        func files(_ suffix: String) throws -> [String] {
            try FileManager.default.subpathsOfDirectory(atPath: scratch.path).filter { $0.hasSuffix(suffix) }.sorted()
        }
    }

    @Test func segmentsMoveIntoPartitionFilesAndNothingChanges() throws {
        let fixture = try Fixture()
        let layout = TopicLayout(name: "t", partitions: 1)
        try fixture.log.declare(layout)
        try fixture.add("t", (0..<200).map { ("k\($0 % 5)", "value \($0)") }, prefix: "e")
        let before = try fixture.contents("t")
        let head = try fixture.log.verify().head
        try fixture.log.maintain()
        #expect(try fixture.files(".log").count > 1 && fixture.files(".chain").count > 1)
        #expect(try fixture.files(".wal").count == 1)
        func compare() throws {
            let after = try fixture.contents("t")
            #expect(after.map(\.offset) == before.map(\.offset) && after.map(\.digest) == before.map(\.digest))
            let check = try fixture.log.verify()
            #expect(check.isIntact && check.head == head && check.events == 200)
        }
        try compare()
        let statistics = fixture.log.statistics
        #expect(
            statistics.waitingSegments == 0 && statistics.writeAmplification > 1 && statistics.writeAmplification < 3)
        // Batches became larger: 200 appends of one event.
        let batches = try fixture.log.read(TopicPartition("t", 0), from: 0, maxBytes: 1 << 20)
        #expect((batches.first?.records.count ?? 0) > 10)
        try fixture.reopen([layout])
        #expect(fixture.log.recovery.rebuiltIndexes.isEmpty && fixture.log.recovery.scannedBytes == 0)
        try compare()
        // Ids are still known, out of their files.
        let again = Monitor<[Bool]>([])
        let event = NewEvent(id: "e3", source: "s", type: "t", time: Instant(milliseconds: 3), data: [])
        fixture.log.append(LogAppend(principal: "p", events: [("t", 0, event)])) { result in
            again.withLock { $0 = (try? result.get().events.map { $0.duplicate && $0.position.offset == 3 }) ?? [] }
        }
        fixture.log.commitReady()
        #expect(again.withLock { $0 } == [true])
        fixture.log.close()
    }

    /// Somebody edits a partition file and makes every checksum good again; the chain tells.
    /// The order over all topics is that of the receipts, while it stands in the WAL, when a part has moved, and when all has.
    @Test func theOrderOverAllTopicsStays() throws {
        let fixture = try Fixture()
        let layouts = [TopicLayout(name: "a", partitions: 2), TopicLayout(name: "b", partitions: 1)]
        for layout in layouts { try fixture.log.declare(layout) }
        var random = SeededRandom(seed: 4)
        let receipts = Monitor<[(sequence: UInt64, place: String)]>([])
        for round in 0..<60 {
            let events = (0..<Int.random(in: 1...7, using: &random)).map { number in
                (
                    topic: Bool.random(using: &random) ? "a" : "b", partition: Int?.none,
                    event: NewEvent(
                        id: "\(round)-\(number)", source: "s", type: "t", time: Instant(milliseconds: 0),
                        data: [UInt8](repeating: 0x20, count: 60))
                )
            }
            fixture.log.append(LogAppend(principal: "p", events: events)) { result in
                guard let events = try? result.get().events else { return }
                receipts.withLock { list in
                    for position in events.map(\.position) {
                        list.append(
                            (position.sequence ?? .max, "\(position.topic)/\(position.partition)@\(position.offset)"))
                    }
                }
            }
            fixture.log.commitReady()
            if round == 40 { try fixture.log.maintain() }
        }
        let expected = receipts.withLock { $0 }
        func compare() throws {
            let found = try fixture.log.order(from: 0, limit: expected.count).places
            #expect(found.map(\.sequence) == expected.map(\.sequence) && expected.count > 150)
            #expect(found.map { "\($0.partition)@\($0.offset)" } == expected.map(\.place))
            let some = try fixture.log.order(from: 33, limit: 20).places
            #expect(some.map { "\($0.partition)@\($0.offset)" } == expected[33..<53].map(\.place))
        }
        try compare()
        try fixture.seal()
        try compare()
        try fixture.reopen(layouts)
        try compare()
        fixture.log.close()
    }

    @Test func rewritingAMovedRecordIsFound() throws {
        let fixture = try Fixture()
        try fixture.log.declare(TopicLayout(name: "t", partitions: 1))
        try fixture.add("t", (0..<200).map { (nil, "value \($0)") }, prefix: "e")
        try fixture.log.maintain()
        fixture.log.close()
        let path = try #require(try fixture.files(".log").first { $0.hasPrefix("t-0") })
        let full = fixture.scratch.path + "/" + path
        var bytes = [UInt8](try #require(FileManager.default.contents(atPath: full)))
        let size = try bytes.withUnsafeBytes { try RecordBatchHeader($0) }.size
        let batch = try Array(bytes[..<size]).withUnsafeBytes { try RecordBatch($0) }
        var builder = RecordBatchBuilder(baseOffset: 0)
        for index in batch.records.indices {
            let event = StoredEvent(batch: batch, index: index)
            let lie = String(decoding: event.data ?? [], as: UTF8.self).replacingOccurrences(
                of: "value 3", with: "value 4")
            builder.append(
                NewEvent(
                    id: event.id, source: "s", type: "t", time: event.time, key: event.key, data: [UInt8](lie.utf8)))
        }
        let forged = builder.finish().bytes
        try #require(forged.count <= size)
        bytes.replaceSubrange(..<size, with: forged)
        // Whoever forges would make the index good as well; without one it is built from the file.
        try FileManager.default.removeItem(atPath: full.dropLast(4) + ".index")
        try Data(bytes).write(to: URL(filePath: full))
        let log = try Fixture.open(fixture.scratch.path, fixture.clock)
        let check = try log.verify()
        #expect(check.rewritten.contains { $0.ranges.contains { $0.partition.topic == "t" && $0.offsets.contains(3) } })
        log.close()
    }

    @Test(arguments: [true, false]) func retentionGivesUpWholeFilesAndRespectsPins(byTime: Bool) throws {
        let fixture = try Fixture()
        let layout = TopicLayout(
            name: "t", partitions: 1,
            retention: byTime ? Retention(milliseconds: 10_000) : Retention(bytes: 4000))
        let partition = TopicPartition("t", 0)
        try fixture.log.declare(layout)
        for round in 0..<6 {
            try fixture.add("t", (0..<60).map { (nil, "value \(round) \($0) \($0 * 7919)") }, prefix: "r\(round)-")
            fixture.clock.withLock { $0 += 4000 }
        }
        try fixture.log.pin(Pin(name: "model", ranges: [partition: 0..<10]))
        try fixture.log.maintain()
        #expect(try fixture.log.offsets(partition).lowerBound == 0)
        try fixture.log.pin(Pin(name: "model", ranges: [partition: 100..<110]))
        fixture.clock.withLock { $0 += 1000 }
        try fixture.log.maintain()
        let held = try fixture.log.offsets(partition).lowerBound
        #expect(held > 0 && held <= 100)
        try fixture.log.unpin("model")
        let chains = try fixture.files(".chain").count
        try fixture.log.maintain()
        let start = try fixture.log.offsets(partition).lowerBound
        #expect(start > 100 && start < 360)
        #expect(try fixture.files(".chain").count < chains)
        let kept = try fixture.contents("t")
        #expect(kept.first?.offset == start && kept.last?.offset == 359)
        let check = try fixture.log.verify()
        #expect(check.isIntact && check.events < 360)
        try fixture.reopen([layout])
        #expect(try fixture.log.offsets(partition) == start..<360)
        #expect(try fixture.log.verify().isIntact)
        fixture.log.close()
    }

    @Test func compactionKeepsTheNewestAndTombstonesForTheirTime() throws {
        let fixture = try Fixture()
        let layout = TopicLayout(name: "t", partitions: 1, isCompacted: true, tombstoneRetention: 5000)
        let partition = TopicPartition("t", 0)
        try fixture.log.declare(layout)
        try fixture.add("t", (0..<100).map { ("k\($0 % 10)", "value \($0)") }, prefix: "e")
        try fixture.add("t", [("k3", nil), ("k4", nil)], prefix: "dead")
        try fixture.log.pin(Pin(name: "audit", ranges: [partition: 17..<18]))
        try fixture.seal()
        let before = try fixture.contents("t")
        let ends = try fixture.log.offsets(partition)
        try fixture.log.maintain(compactsAll: true)
        var after = try fixture.contents("t")
        // Of each key the newest, the pinned one, and the tombstones.
        let expected = before.filter { row in
            row.offset == 17 || !before.contains { $0.key == row.key && $0.offset > row.offset }
        }
        #expect(after.map(\.offset) == expected.map(\.offset) && after.map(\.digest) == expected.map(\.digest))
        #expect(after.filter { $0.data == nil }.map(\.key) == ["k3", "k4"])
        #expect(try fixture.log.offsets(partition) == ends)
        // Reading from an offset that is gone gives what comes after it, without an end.
        #expect(try fixture.log.read(partition, from: 5, maxBytes: 1).first?.header.lastOffset ?? 0 >= 5)
        // Before the horizon tombstones stay, however often it runs; behind it they go.
        try fixture.log.maintain(compactsAll: true)
        #expect(try fixture.contents("t").map(\.offset) == expected.map(\.offset))
        fixture.clock.withLock { $0 += 5001 }
        try fixture.log.maintain(compactsAll: true)
        // A pin on an older value holds them too, or that value would be the newest again.
        #expect(try fixture.contents("t").map(\.offset) == expected.map(\.offset))
        try fixture.log.unpin("audit")
        try fixture.log.maintain(compactsAll: true)
        after = try fixture.contents("t")
        #expect(after.map(\.offset) == expected.filter { $0.data != nil && $0.offset != 17 }.map(\.offset))
        let check = try fixture.log.verify()
        #expect(check.isIntact && check.released >= 100)
        try fixture.reopen([layout])
        #expect(try fixture.contents("t").map(\.digest) == after.map(\.digest))
        let keyless = NewEvent(id: "x", source: "s", type: "t", time: Instant(milliseconds: 0), data: [])
        let code = Monitor<String?>(nil)
        fixture.log.append(LogAppend(principal: "p", events: [("t", 0, keyless)])) { result in
            code.withLock { if case .failure(let error) = result { $0 = error.code } }
        }
        #expect(code.withLock { $0 } == "key-required")
        fixture.log.close()
    }

    /// What producers wrote survives restart, segment roll, rewriting and compaction.
    @Test(arguments: [false, true]) func producersAreKnownAfterEverything(compacts: Bool) throws {
        let fixture = try Fixture()
        let layout = TopicLayout(name: "t", partitions: 1, isCompacted: compacts)
        let partition = TopicPartition("t", 0)
        try fixture.log.declare(layout)
        let me = try fixture.log.registerProducer(named: "me")
        func send(_ sequence: Int32) throws -> Result<BatchReceipt, EventLogError>? {
            var builder = RecordBatchBuilder()
            let key = [UInt8]("k\(sequence % 2)".utf8)
            [UInt8]("v\(sequence)".utf8).withUnsafeBytes { value in
                key.withUnsafeBytes { builder.append(key: $0, value: value, time: 0) }
            }
            let stamp = ProducerStamp(id: me.id, epoch: me.epoch, sequence: sequence)
            let box = Monitor<Result<BatchReceipt, EventLogError>?>(nil)
            fixture.log.append(
                BatchAppend(principal: "p", partition: partition, batch: builder.finish(producer: stamp))
            ) {
                result in box.withLock { $0 = result }
            }
            fixture.log.commitReady()
            return box.withLock { $0 }
        }
        for sequence in 0..<5 { #expect(try send(Int32(sequence))?.get().position.offset == Int64(sequence)) }
        func known() throws {
            for sequence in 0..<5 {
                let receipt = try #require(try send(Int32(sequence))?.get())
                #expect(receipt.duplicate && receipt.position.offset == Int64(sequence))
            }
            #expect(errorCode { _ = try send(6)?.get() } == "out-of-order-sequence")
        }
        try known()
        try fixture.reopen([layout])
        try known()
        try fixture.seal()
        #expect(try fixture.files(".log").contains { $0.hasPrefix("t-0") })
        try known()
        if compacts {
            try fixture.log.maintain(compactsAll: true)
            #expect(try fixture.contents("t").map(\.offset) == [3, 4], "of each key the newest")
            try known()
        }
        try fixture.reopen([layout])
        try known()
        #expect(try send(5)?.get().position.offset == 5)
        fixture.log.close()
    }

    /// A backup is taken while appends go on, a second one copies what is new, and both come back whole.
    @Test func backupsAreConsistentAndIncremental() throws {
        let scratch = try ScratchDirectory()
        let log = try EmbeddedLogTests.open(scratch.path + "/log", segmentSize: 20_000)
        let stop = Monitor(false)
        let writer = BlockingThread(name: "writer") {
            var number = 0
            while !stop.withLock({ $0 }), number < 20_000 {
                let events = (0..<5).map { ("b", Int?.none, EmbeddedLogTests.event("w\(number)-\($0)")) }
                _ = try? log.append(LogAppend(principal: "p", events: events))
                number += 1
            }
        }
        let target = scratch.path + "/backup"
        var last: BackupReport?
        for round in 0..<4 {
            Thread.sleep(forTimeInterval: 0.05)
            let report = try log.backup(to: DiskVolume(target))
            #expect(report.events >= last?.events ?? 0)
            if let last, round > 0 { #expect(report.copiedBytes < report.totalBytes || last.totalBytes == 0) }
            last = report
            let copy = scratch.path + "/restored\(round)"
            let (_, check) = try EmbeddedLog.restore(from: DiskVolume(target), to: DiskVolume(copy))
            #expect(check.isIntact && check.events == report.events)
            let restored = try EmbeddedLogTests.open(copy)
            #expect(restored.recovery.damaged.isEmpty && restored.recovery.truncatedBytes == 0)
            // Ids are known there, too, and it goes on from where it was.
            let again = try restored.append(
                LogAppend(principal: "p", events: [("b", nil, EmbeddedLogTests.event("w0-0"))]))
            #expect(again.events[0].duplicate == (report.events > 0))
            restored.close()
        }
        stop.update { $0 = true }
        writer.join()
        #expect(
            errorCode { _ = try EmbeddedLog.restore(from: DiskVolume(target), to: DiskVolume(target)) } == "not-empty")
        log.close()
        let other = try EmbeddedLogTests.open(scratch.path + "/other")
        #expect(errorCode { _ = try other.backup(to: DiskVolume(target)) } == "bad-backup")
        other.close()
    }

    /// With all threads on: readers, seekers and followers see every event once and in order while segments are sealed,
    /// moved and compacted under them; and no more segments wait to be moved than may.
    @Test func upkeepDisturbsNobody() async throws {
        let scratch = try ScratchDirectory()
        var options = EmbeddedLog.Options()
        options.segmentSize = 30_000
        options.partitionFileSize = 20_000
        options.rewriting.joined = 8000
        options.maintenanceInterval = 0.02
        options.waitingSegments = 2
        let log = try EmbeddedLog.open(scratch.path, options: options)
        try log.declare(TopicLayout(name: "t", partitions: 1))
        try log.declare(TopicLayout(name: "c", partitions: 1, isCompacted: true))
        let partition = TopicPartition("t", 0)
        let total = 30_000
        let wrong = Monitor<[String]>([])
        @Sendable func blame(_ what: String) { wrong.withLock { if $0.count < 5 { $0.append(what) } } }
        let writer = BlockingThread(name: "writer") {
            for first in stride(from: 0, to: total, by: 50) {
                let events = (first..<first + 50).flatMap { number in
                    [("t", "e\(number)"), ("c", "k\(number % 7)-\(number)")].map { topic, id in
                        (
                            topic, Int?.none,
                            NewEvent(
                                id: id, source: "s", type: "t", time: Instant(milliseconds: Int64(number)),
                                key: [UInt8](id.prefix { $0 != "-" }.utf8), data: [UInt8](repeating: 65, count: 60))
                        )
                    }
                }
                if (try? log.append(LogAppend(principal: "p", events: events))) == nil { blame("an append failed") }
            }
        }
        let mostWaiting = Monitor(0)
        let seeker = BlockingThread(name: "seeker") {
            var random = SeededRandom(seed: 3)
            while true {
                guard let end = try? log.offsets(partition).upperBound, end < total else { return }
                mostWaiting.withLock { $0 = max($0, log.statistics.waitingSegments) }
                guard end > 0 else { continue }
                let offset = Int64.random(in: 0..<end, using: &random)
                // Times are offsets here.
                let found = try? log.offset(partition, atOrAfter: Instant(milliseconds: offset))
                if found != offset { blame("time \(offset) gives \(String(describing: found))") }
                let batch = try? log.read(partition, from: offset, maxBytes: 1).first
                if batch?.records.contains(where: { $0.offset == offset }) != true { blame("\(offset) is not there") }
            }
        }
        let counts = try await withThrowingTaskGroup(of: Int64.self) { group in
            for _ in 0..<20 {
                group.addTask {
                    let follower = try log.follow([partition: 0])
                    var next: Int64 = 0
                    while next < Int64(total), let page = try await follower.next() {
                        for record in page.batches.flatMap(\.records) where record.offset >= page.from {
                            if record.offset != next { blame("a follower got \(record.offset) for \(next)") }
                            next = record.offset + 1
                        }
                    }
                    return next
                }
            }
            return try await group.reduce(into: []) { $0.append($1) }
        }
        writer.join()
        seeker.join()
        #expect(wrong.withLock { $0 } == [])
        #expect(counts == Array(repeating: Int64(total), count: 20))
        // One more is sealed before the writer waits.
        #expect((1...3).contains(mostWaiting.withLock { $0 }), "\(mostWaiting.withLock { $0 })")
        #expect(log.statistics.rewrittenBytes > 100_000)
        try log.maintain(compactsAll: true)
        #expect(try log.verify().isIntact)
        log.close()
    }

    /// Ids are forgotten behind their horizon, not before, and no others with them.
    @Test func idsAreKnownForTheirHorizon() throws {
        let fixture = try Fixture()
        let layouts = ["t", "filler"].map {
            TopicLayout(name: $0, partitions: 1, deduplication: .milliseconds(10_000))
        }
        for layout in layouts { try fixture.log.declare(layout) }
        try fixture.add("t", [(nil, "one")], prefix: "e")
        let noise = (0..<60).map {
            (String?.none, String?.some("\($0) \($0 * 7919 % 1000) \(String($0).shuffled(seed: $0))"))
        }
        try fixture.add("filler", noise, prefix: "f")
        try fixture.log.maintain()
        #expect(try fixture.files(".ids").count > 1)
        func isDuplicate(_ id: String = "e0", _ topic: String = "t") -> Bool? {
            let box = Monitor<Bool?>(nil)
            let event = NewEvent(id: id, source: "s", type: "t", time: Instant(milliseconds: 0), data: [])
            fixture.log.append(LogAppend(principal: "p", events: [(topic, 0, event)])) { result in
                box.withLock { $0 = try? result.get().events[0].duplicate }
            }
            fixture.log.commitReady()
            return box.withLock { $0 }
        }
        fixture.clock.withLock { $0 += 9000 }
        #expect(isDuplicate() == true)
        let files = try fixture.files(".ids").count
        fixture.clock.withLock { $0 += 2000 }
        // What is in memory goes when the segments that are written now have files of their own.
        for prefix in ["g", "h"] {
            try fixture.add("filler", noise, prefix: prefix)
            try fixture.log.maintain()
        }
        #expect(try fixture.files(".ids").count <= 2 * files)
        #expect(isDuplicate() == false)
        // What is left is told apart as before: the filter that spares looking through the files was begun anew.
        for _ in 0..<2 {
            for number in 0..<60 {
                #expect(isDuplicate("g\(number)", "filler") == true && isDuplicate("h\(number)", "filler") == true)
            }
            try fixture.log.maintain()
        }
        fixture.log.close()
    }
}

extension String {
    /// The characters in an order that a seed gives.
    func shuffled(seed: Int) -> String {
        var random = SeededRandom(seed: UInt64(seed))
        return String(Array(self).shuffled(using: &random))
    }
}
