import Headrace

/// A worked example of a stream that several nodes share: twelve partitions, twelve tasks, and a table that answers wherever it
/// is asked (docs/streams.md).
public enum ShopStreams {
    /// What each visitor looked at and spent: over the last hour after every click, and for good.
    @Sendable public static func visits() -> StreamBuilder {
        let shop = StreamBuilder("visits", runs: .byPartition)
        let clicks = shop.stream("shop.clicks", JSON.self).keyedByEvent()
        clicks.windowed(by: .sliding(milliseconds: 3_600_000))
            .measure(.count("clicks"), .of(.sum, "spent") { (click: JSON) in click["spent"]?.double })
            .to("visits.hourly", type: "visits.hour")
        clicks.map("spent") { record -> Double in record.value["spent"]?.double ?? 0 }
            .reduce("total") { $0 + $1.value }
            .served(as: "spent")
        return shop
    }
}
