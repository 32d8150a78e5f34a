@_exported import Base
import Node
@_exported import Streams

/// The command line as a library: a program of your own that is `headrace`, with your topologies of typed streams in it.
///
/// ```swift
/// import Headrace
///
/// await Headrace.main(streams: [carrierHours])
/// ```
public enum Headrace {
    /// Topologies of this program, set once before the arguments are read.
    static let streams = Monitor<[StreamTopology]>([])

    /// Runs the command that the arguments name. `start` folds the given topologies beside the workspace's own.
    /// - Parameter streams: each builds its topology anew whenever it is called: for every task, and for every replay.
    public static func main(streams: [@Sendable () -> StreamBuilder] = []) async {
        Self.streams.withLock { $0 = streams.map { StreamTopology($0) } }
        await HeadraceCommand.main()
    }
}
