import Base
import RecordFormat

/// Which files of a log are valid and how far: the one file that rewriting, trimming and compaction replace as a whole,
/// so that each of them has happened or has not. Written twice; either copy will do.
struct Manifest: Sendable {
    static let magic: UInt32 = 0x314D_5248  // "HRM1"
    static let names = ["manifest", "manifest.copy"]

    /// One file of batches of a partition.
    struct File: Sendable, Equatable {
        let baseOffset: Int64
        /// One past the last offset.
        var end: Int64
        /// Rises when compaction writes the file again.
        let generation: UInt32
        var bytes: Int64 = 0
        var records: Int64 = 0
        var maxTime: Int64 = .min
        /// Recorded time of the newest record.
        var newestRecorded: Int64 = .min
        /// CRC-32C of the index file that belongs to exactly these bytes.
        var indexStamp: UInt32 = 0
        /// Of the whole file, once records were taken out of it: from then on the batches' own digests no longer apply.
        var digest: Digest = .zero

        var isCompacted: Bool { digest != .zero }
        var range: Range<Int64> { baseOffset..<end }

        func path(_ partition: TopicPartition) -> String {
            Manifest.directory(partition) + "/" + Manifest.digits(UInt64(baseOffset))
                + (generation == 0 ? ".log" : ".g\(generation).log")
        }
    }

    struct Partition: Sendable, Equatable {
        let partition: TopicPartition
        /// First offset that may be read.
        var start: Int64 = 0
        /// One past the last offset that stands in the files.
        var end: Int64 = 0
        /// Offsets below it were compacted.
        var compactedThrough: Int64 = 0
        var files: [File] = []
        /// Offsets lost to damage before they were rewritten.
        var lost: [Range<Int64>] = []
    }

    /// The envelopes of a rewritten WAL segment.
    struct Chain: Sendable, Equatable {
        let firstSequence: UInt64
        let endSequence: UInt64
        let bytes: Int64

        var path: String { Manifest.digits(firstSequence) + ".chain" }
    }

    var generation: UInt64 = 0
    /// WAL segments that begin below this sequence have been rewritten.
    var rewrittenThrough: UInt64 = 0
    /// Hash of the last frame below it.
    var rewrittenHash = Digest.zero
    /// Where the chain files begin, and the hash of the frame before.
    var chainStart: UInt64 = 0
    var chainHash = Digest.zero
    var chains: [Chain] = []
    /// Ids of events below this sequence were forgotten: no topic's horizon reached them.
    var identifiersFrom: UInt64 = 0
    var partitions: [Partition] = []
    var damaged: [DamagedRange] = []
    /// Offsets that were given to events which are gone from the WAL without a trace in it; never given again.
    var losses: [Loss] = []
    var pins: [Pin] = []
    /// As of `rewrittenThrough`.
    var producers = ProducerTable()
    /// Bytes ever taken from the WAL, and written by rewriting and compaction.
    var rewrittenBytes: UInt64 = 0
    var maintenanceBytes: UInt64 = 0

    /// Offsets of a partition that are lost, or, where nobody knows in which partitions the lost events stood, may be.
    struct Loss: Sendable, Equatable {
        let partition: TopicPartition
        let offsets: Range<Int64>
        let isCertain: Bool
    }

    static func digits(_ number: UInt64) -> String {
        let digits = String(number)
        return String(repeating: "0", count: max(0, 20 - digits.count)) + digits
    }

    static func directory(_ partition: TopicPartition) -> String { "\(partition.topic)-\(partition.partition)" }

    func index(of partition: TopicPartition) -> Int? { partitions.firstIndex { $0.partition == partition } }

    mutating func ensure(_ partition: TopicPartition) -> Int {
        if let known = index(of: partition) { return known }
        partitions.append(Partition(partition: partition))
        return partitions.count - 1
    }

    func encoded() -> [UInt8] {
        var out = ByteWriter(capacity: 4096)
        out.append(little: Manifest.magic)
        out.append(little: UInt32(0))
        for number in [generation, rewrittenThrough, chainStart, identifiersFrom, rewrittenBytes, maintenanceBytes] {
            out.append(little: number)
        }
        out.append(rewrittenHash.bytes)
        out.append(chainHash.bytes)
        out.append(little: UInt32(chains.count))
        for chain in chains {
            out.append(little: chain.firstSequence)
            out.append(little: chain.endSequence)
            out.append(little: chain.bytes)
        }
        out.append(little: UInt32(partitions.count))
        for partition in partitions { encode(partition, &out) }
        out.append(little: UInt32(damaged.count))
        for range in damaged {
            out.append(sized: range.file)
            out.append(little: range.from)
            out.append(little: range.to)
            out.append(little: range.sequences.lowerBound)
            out.append(little: range.sequences.upperBound)
        }
        out.append(little: UInt32(pins.count))
        for pin in pins {
            out.append(sized: pin.name)
            out.append(little: UInt32(pin.ranges.count))
            for (partition, range) in pin.ranges.sorted(by: { $0.key < $1.key }) {
                out.append(sized: partition.topic)
                out.append(little: UInt32(partition.partition))
                out.append(little: range.lowerBound)
                out.append(little: range.upperBound)
            }
        }
        producers.encode(into: &out)
        if !losses.isEmpty {
            out.append(little: UInt32(losses.count))
            for loss in losses {
                out.append(sized: loss.partition.topic)
                out.append(little: UInt32(loss.partition.partition))
                out.append(little: loss.offsets.lowerBound)
                out.append(little: loss.offsets.upperBound)
                out.append(UInt8(loss.isCertain ? 1 : 0))
            }
        }
        out.sealFromEight()
        return out.bytes
    }

    private func encode(_ partition: Partition, _ out: inout ByteWriter) {
        out.append(sized: partition.partition.topic)
        out.append(little: UInt32(partition.partition.partition))
        out.append(little: partition.start)
        out.append(little: partition.end)
        out.append(little: partition.compactedThrough)
        out.append(little: UInt32(partition.files.count))
        for file in partition.files {
            for number in [file.baseOffset, file.end, file.bytes, file.records, file.maxTime, file.newestRecorded] {
                out.append(little: number)
            }
            out.append(little: file.generation)
            out.append(little: file.indexStamp)
            out.append(file.digest.bytes)
        }
        out.append(little: UInt32(partition.lost.count))
        for range in partition.lost {
            out.append(little: range.lowerBound)
            out.append(little: range.upperBound)
        }
    }
}

extension Manifest {
    /// nil when the bytes are not a whole, undamaged manifest.
    init?(_ bytes: [UInt8]) {
        do {
            try bytes.withRaw { raw throws(BaseError) in try self.read(raw) }
        } catch {
            return nil
        }
    }

    private static func digest(_ reader: inout ByteReader) throws(BaseError) -> Digest {
        guard let digest = Digest(try reader.slice(Digest.byteCount)) else {
            throw BaseError("bad-manifest", "no digest", fault: .world)
        }
        return digest
    }

    private static func range(_ reader: inout ByteReader) throws(BaseError) -> Range<Int64> {
        let from: Int64 = try reader.little()
        let to: Int64 = try reader.little()
        guard from >= 0, to >= from else { throw BaseError("bad-manifest", "a range cannot be", fault: .world) }
        return from..<to
    }

    private static func partition(_ reader: inout ByteReader) throws(BaseError) -> TopicPartition {
        let topic = try reader.sizedText()
        return TopicPartition(topic, Int(try reader.little(UInt32.self)))
    }

    private mutating func read(_ raw: UnsafeRawBufferPointer) throws(BaseError) {
        var reader = try ByteReader(sealed: raw, magic: Manifest.magic)
        generation = try reader.little()
        rewrittenThrough = try reader.little()
        chainStart = try reader.little()
        identifiersFrom = try reader.little()
        rewrittenBytes = try reader.little()
        maintenanceBytes = try reader.little()
        rewrittenHash = try Manifest.digest(&reader)
        chainHash = try Manifest.digest(&reader)
        for _ in 0..<(try reader.little(UInt32.self)) {
            let first: UInt64 = try reader.little()
            let end: UInt64 = try reader.little()
            chains.append(Chain(firstSequence: first, endSequence: end, bytes: try reader.little()))
        }
        for _ in 0..<(try reader.little(UInt32.self)) { partitions.append(try Manifest.readPartition(&reader)) }
        for _ in 0..<(try reader.little(UInt32.self)) {
            let file = try reader.sizedText()
            let from: Int64 = try reader.little()
            let to: Int64 = try reader.little()
            let sequences = try Manifest.range(&reader)
            damaged.append(
                DamagedRange(
                    file: file, from: from, to: to,
                    sequences: UInt64(sequences.lowerBound)..<UInt64(sequences.upperBound)))
        }
        for _ in 0..<(try reader.little(UInt32.self)) {
            let name = try reader.sizedText()
            var ranges: [TopicPartition: Range<Int64>] = [:]
            for _ in 0..<(try reader.little(UInt32.self)) {
                let partition = try Manifest.partition(&reader)
                ranges[partition] = try Manifest.range(&reader)
            }
            pins.append(Pin(name: name, ranges: ranges))
        }
        producers = try ProducerTable(&reader)
        guard reader.remaining > 0 else { return }
        for _ in 0..<(try reader.little(UInt32.self)) {
            let partition = try Manifest.partition(&reader)
            losses.append(
                Loss(partition: partition, offsets: try Manifest.range(&reader), isCertain: try reader.byte() == 1))
        }
    }

    private static func readPartition(_ reader: inout ByteReader) throws(BaseError) -> Partition {
        var result = Partition(partition: try partition(&reader))
        result.start = try reader.little()
        result.end = try reader.little()
        result.compactedThrough = try reader.little()
        for _ in 0..<(try reader.little(UInt32.self)) {
            let range = try self.range(&reader)
            let bytes: Int64 = try reader.little()
            let records: Int64 = try reader.little()
            let maxTime: Int64 = try reader.little()
            let newest: Int64 = try reader.little()
            var file = File(
                baseOffset: range.lowerBound, end: range.upperBound, generation: try reader.little(), bytes: bytes,
                records: records, maxTime: maxTime, newestRecorded: newest)
            file.indexStamp = try reader.little()
            file.digest = try digest(&reader)
            result.files.append(file)
        }
        for _ in 0..<(try reader.little(UInt32.self)) { result.lost.append(try range(&reader)) }
        return result
    }

    /// The newest whole copy; nil when there is none at all.
    static func load(_ volume: any LogVolume) throws(EventLogError) -> Manifest? {
        let present = try volume.list()
        var newest: Manifest?
        var damaged: [String] = []
        for name in names where present.contains(name) {
            guard let bytes = volume.contents(name), let manifest = Manifest(bytes) else {
                damaged.append(name)
                continue
            }
            if manifest.generation >= newest?.generation ?? 0 { newest = manifest }
        }
        if newest == nil, !damaged.isEmpty {
            throw EventLogError(
                "manifest-damaged",
                "\(damaged.joined(separator: " and ")) in \(volume.path) are damaged; `headrace log repair --from BACKUP` takes it from a backup where that is of the same state. Nothing was changed",
                fault: .world)
        }
        return newest
    }

    /// Puts back a copy that is missing, damaged or old.
    func restoreCopies(_ volume: any LogVolume) throws(EventLogError) {
        guard generation > 0 else { return }
        let bytes = encoded()
        for name in Manifest.names where volume.contents(name) != bytes {
            try volume.replace(name, with: bytes, durable: true)
        }
    }

    /// Makes this the valid state, durably. After a crash in between, the old one or this one holds.
    /// - Returns: whether this is the valid state now; with a failure even then, when nobody knows which of the two a
    ///   crash would leave. Nothing that either of them names may be removed after that.
    mutating func store(_ volume: any LogVolume) -> (isAdopted: Bool, failure: EventLogError?) {
        generation += 1
        let bytes = encoded()
        var renamed = 0
        do throws(EventLogError) {
            // Whatever can fail for want of space fails before anything has changed.
            for name in Manifest.names { try volume.prepare(name, with: bytes) }
            for name in Manifest.names {
                try volume.rename(name + ".tmp", name)
                renamed += 1
            }
            try volume.syncDirectory("")
            return (true, nil)
        } catch {
            if renamed == 0 { generation -= 1 }
            return (renamed > 0, error)
        }
    }
}
