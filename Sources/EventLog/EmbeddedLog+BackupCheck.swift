import Base
import RecordFormat

/// Looks at what a backup has copied: damage is told when it is copied, not when it is needed.
extension EmbeddedLog {
    /// Frames of a WAL segment that cannot be read, and batches in them that are not what their frame says.
    static func damage(
        inSegment path: String, end: Int64, on target: any LogVolume
    ) throws(EventLogError) -> [DamagedRange] {
        var found: [DamagedRange] = []
        var next = UInt64(path.prefix { $0 != "." }) ?? 0
        var walker = FrameWalker(file: try target.open(path, .read), offset: 0, end: end)
        while let step = try walker.next() {
            switch step {
            case .frame(let frame, let at, let bytes):
                next = frame.endSequence
                let isSound = frame.batches.allSatisfy { (try? records($0, bytes)) != nil }
                guard !isSound else { continue }
                found.append(
                    DamagedRange(
                        file: path, from: at, to: at + Int64(frame.size),
                        sequences: frame.firstSequence..<frame.endSequence))
            case .damage(let from, let resume):
                let to = max(next, resume?.description.firstSequence ?? next)
                found.append(DamagedRange(file: path, from: from, to: resume?.at ?? end, sequences: next..<to))
                walker.offset = resume?.at ?? end
            }
        }
        return found
    }

    /// A file of the chain that is not what the manifest says.
    static func damage(in chain: Manifest.Chain, on target: any LogVolume) throws(EventLogError) -> [DamagedRange] {
        do {
            _ = try ChainFile.load(target, chain)
            return []
        } catch {
            guard error.code == "rot" || error.code == "no-such-file" else { throw error }
            var range = DamagedRange(
                file: chain.path, from: 0, to: chain.bytes, sequences: chain.firstSequence..<chain.endSequence)
            range.isProofAlone = true
            return [range]
        }
    }
}
