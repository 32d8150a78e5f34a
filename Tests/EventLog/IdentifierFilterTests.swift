import Base
import EventLog
import Foundation
import RecordFormat
import Testing

@Suite struct IdentifierFilterTests {
    /// No id that was taken is ever denied, through several sizes, and few others are taken for one.
    @Test func nothingTakenIsDenied() {
        var random = SeededRandom(seed: 5)
        var filter = IdentifierFilter()
        let taken = (0..<600_000).map { _ in (random.next() | 1, random.next()) }
        var isTaken = true
        for hash in taken { isTaken = filter.insert(hash) && isTaken }
        #expect(isTaken)
        #expect(taken.allSatisfy { filter.mayHold($0) } && filter.count == taken.count)
        let wrong = (0..<200_000).filter { _ in filter.mayHold((random.next() | 1, random.next())) }.count
        #expect(wrong < 8_000, "\(wrong) of 200,000")
    }

    /// Ids in many files are known before the upkeep has filtered them, afterwards, and after another opening.
    @Test func idsOfManySegmentsAreKnown() throws {
        let scratch = try ScratchDirectory()
        var options = EmbeddedLog.Options()
        options.segmentSize = 64 << 10
        options.hasThreads = false
        func event(_ number: Int) -> (topic: String, partition: Int?, event: NewEvent) {
            let data = [UInt8]("\(number) \(String(repeating: "x", count: number % 90))".utf8)
            return (
                "t", nil,
                NewEvent(id: "id\(number)", source: "s", type: "t", time: Instant(milliseconds: 0), data: data)
            )
        }
        func duplicates(_ log: EmbeddedLog, _ numbers: [Int]) throws -> Int {
            var found = 0
            // In an append of its own each, as new ones would be written.
            for number in numbers {
                let receipt = Monitor<AppendReceipt?>(nil)
                log.append(LogAppend(principal: "p", events: [event(number)])) { result in
                    receipt.update { $0 = try? result.get() }
                }
                log.commitReady()
                if receipt.withLock({ $0?.events.first?.duplicate }) == true { found += 1 }
            }
            return found
        }
        for round in 0..<3 {
            let log = try EmbeddedLog.open(DiskVolume(scratch.path), options: options)
            try log.declare(TopicLayout(name: "t", partitions: 2))
            let before = round * 20_000
            #expect(try duplicates(log, stride(from: 0, to: before, by: 97).map { $0 }) == (before + 96) / 97)
            for start in stride(from: before, to: before + 20_000, by: 500) {
                log.append(LogAppend(principal: "p", events: (start..<start + 500).map(event))) { _ in }
                log.commitReady()
                if start % 4_000 == 0 { try log.maintain() }
            }
            try log.maintain()
            try log.maintain()
            #expect(
                try duplicates(log, stride(from: 0, to: before + 20_000, by: 61).map { $0 }) == (before + 20_060) / 61)
            #expect(try duplicates(log, [before + 20_000 + 1_000_000]) == 0)
            log.close()
        }
    }
}
