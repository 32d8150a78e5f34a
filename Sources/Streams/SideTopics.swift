/// Where a topology puts what is no result: a late event, one that it could not fold, the digests of its state. Each is
/// written by one topology alone, so that its events have places that are known before the log has them.
package struct SideTopics: Sendable, Equatable {
    package let late: String
    package let unfolded: String
    package let digests: String
    /// How far the topology is, for those that read what it writes. Nothing in it is derived from events alone, so no replay
    /// looks at it.
    package let progress: String

    /// Those of the workspace's own topology.
    package static let platform = SideTopics(
        late: "headrace.late", unfolded: "headrace.unfolded", digests: "headrace.digests",
        progress: "headrace.progress")

    private init(late: String, unfolded: String, digests: String, progress: String) {
        self.late = late
        self.unfolded = unfolded
        self.digests = digests
        self.progress = progress
    }

    /// Those of a topology of typed streams.
    package init(of topology: String) {
        self.init(
            late: topology + ".late", unfolded: topology + ".unfolded", digests: topology + ".digests",
            progress: topology + ".progress")
    }

    /// What a replay emits again.
    package var all: [String] { [late, unfolded, digests] }
}
