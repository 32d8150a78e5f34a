import Base
import EventLog
import RecordFormat

/// Transactions in an embedded log, by its atomic appends, with what a cluster adds: the newest writer of a name is its owner, an
/// older one is refused, and a commit may be aborted, or come through without anybody hearing of it.
final class OwnedWriter: TransactionalWriter {
    struct Owner {
        var epoch = 0
        /// That came through, whatever its writer was told.
        var commits = 0
    }

    enum Luck { case aborted, unheard }

    private let log: EmbeddedLog
    private let owner: Monitor<Owner>
    private let epoch: Int
    private let luck: () -> Luck?
    private var open: [(topic: String, partition: Int?, event: NewEvent)] = []

    init(log: EmbeddedLog, owner: Monitor<Owner>, luck: @escaping () -> Luck?) {
        (self.log, self.owner, self.luck) = (log, owner, luck)
        epoch = owner.withLock {
            $0.epoch += 1
            return $0.epoch
        }
    }

    func add(_ event: NewEvent, to partition: TopicPartition) throws(EventLogError) {
        open.append((partition.topic, partition.partition, event))
    }

    func commit(
        group: String, consumed: [TopicPartition: Int64], check: ([Int64]) throws(EventLogError) -> Void
    ) throws(EventLogError) {
        let events = open
        open = []
        let (epoch, log) = (epoch, log)
        let luck = luck()
        let offsets = try owner.withLock { (owner) throws(EventLogError) -> [Int64] in
            guard owner.epoch == epoch else { throw EventLogError("producer-fenced", "another writer took over") }
            if luck == .aborted { throw EventLogError("transaction-aborted", "bad luck", retriable: true) }
            let answer = Monitor<Result<AppendReceipt, EventLogError>?>(nil)
            log.append(LogAppend(principal: "t", events: events)) { given in answer.update { $0 = given } }
            log.commitReady()
            owner.commits += 1
            guard let receipt = answer.withLock({ $0 }) else { throw EventLogError("test", "no answer") }
            return try receipt.get().events.map(\.position.offset)
        }
        try check(offsets)
        if luck == .unheard { throw EventLogError("outcome-unknown", "bad luck") }
    }

    func committed(group: String) throws(EventLogError) -> [TopicPartition: Int64] { [:] }
    func abort() throws(EventLogError) { open = [] }
    func close() {}
}
