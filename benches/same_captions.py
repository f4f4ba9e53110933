"""Compares two files of `fisao caption --format json`: how many captions are the same, and how far log-probabilities are apart.

    python same_captions.py EXPECTED FOUND

Other lines of the files, as of warnings, are passed over. Ends with 1 where captions of weights in f32 differ.
"""

import json
import sys


def captions(path):
    found = {}
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("{"):
                row = json.loads(line)
                found[row["image_id"]] = row
    return found


def main():
    expected, found = map(captions, sys.argv[1:3])
    if not expected or expected.keys() != found.keys():
        sys.exit(f"{len(expected)} captions to compare with, {len(found)} found")
    same, differences = 0, []
    for image, row in expected.items():
        tokens = [(token["id"], token["logprob"]) for token in row["tokens"]]
        others = [(token["id"], token["logprob"]) for token in found[image]["tokens"]]
        same += [token for token, _ in tokens] == [token for token, _ in others]
        # Behind the first token that differs, the texts do.
        for (token, logprob), (other, other_logprob) in zip(tokens, others):
            if token != other:
                break
            differences.append(other_logprob - logprob)
    worst = max(map(abs, differences))
    bias = sum(differences) / len(differences)
    print(f"{same} of {len(expected)} captions are the same; log-probabilities differ by up to {worst:.1e} nats, {bias:+.1e} on average")
    sys.exit(0 if same == len(expected) else 1)


if __name__ == "__main__":
    main()
