import Base
import CRdKafka
import EventLog
import Synchronization

/// Records under way together, and where each came to stand. The caller makes it, delivery reports count it down where the
/// client's events are served, by one thread at a time. Sendable: slots are written there and read after the last step of
/// the count, which is atomic; the first failure is behind the Mutex `failure`, a lock.
final class Delivery: @unchecked Sendable {
    struct Slot {
        var owner: Unmanaged<Delivery>
        var offset: Int64
    }

    private let slots: UnsafeMutableBufferPointer<Slot>
    private let remaining: Atomic<Int>
    private let failure = Mutex<EventLogError?>(nil)
    private let what: String
    private let completion: @Sendable (Delivery) -> Void

    /// - Parameters:
    ///   - records: how many records are handed over, each with `slot(_:)`.
    ///   - slots: places to keep offsets in; records that share one leave the lowest.
    init(records: Int, slots count: Int, _ what: String, completion: @escaping @Sendable (Delivery) -> Void) {
        slots = .allocate(capacity: count)
        remaining = Atomic(records)
        self.what = what
        self.completion = completion
        slots.initialize(repeating: Slot(owner: Unmanaged.passUnretained(self), offset: -1))
        // Held until the last record is accounted for.
        _ = Unmanaged.passRetained(self)
    }

    deinit { slots.deallocate() }

    func slot(_ index: Int) -> UnsafeMutableRawPointer? {
        slots.baseAddress.map { UnsafeMutableRawPointer($0 + index) }
    }

    /// The offsets, once all records are accounted for.
    var offsets: [Int64] { slots.map(\.offset) }
    var error: EventLogError? { failure.withLock { $0 } }

    /// A record that was not handed over, or came back.
    func fail(_ error: EventLogError, records: Int = 1) {
        failure.withLock { $0 = $0 ?? error }
        done(records)
    }

    private func done(_ records: Int) {
        guard records > 0 else { return }
        let left = remaining.subtract(records, ordering: .acquiringAndReleasing).newValue
        guard left == 0 else { return }
        completion(self)
        Unmanaged.passUnretained(self).release()
    }

    /// What became of records that share a slot.
    static func report(_ event: OpaquePointer?) {
        headrace_rd_reports(event) { opaque, records, lowest, code, failed in
            guard let slot = opaque?.assumingMemoryBound(to: Slot.self) else { return }
            let delivery = slot.pointee.owner.takeUnretainedValue()
            guard let failed else {
                let known = slot.pointee.offset
                slot.pointee.offset = known < 0 ? lowest : (lowest < 0 ? known : min(known, lowest))
                return delivery.done(Int(records))
            }
            let topic = failed.pointee.rkt.flatMap { rd_kafka_topic_name($0) }.map { String(cString: $0) } ?? "?"
            delivery.fail(KafkaErrors.error(code, "\(delivery.what) to \(topic)/\(failed.pointee.partition)"))
        }
    }
}
