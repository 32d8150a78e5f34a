import Base
import Catalog
import RecordFormat

extension TopologyRunner {
    /// Makes the document what the version says that this topology reads; the reason where that cannot be.
    func lift(_ event: StoredEvent, _ topic: String) -> String? {
        do {
            try topology.readings[topic]?.lift(document, stated: event.header(EventHeader.dataVersion))
            return nil
        } catch {
            return "\(error)"
        }
    }
}
