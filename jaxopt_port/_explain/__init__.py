"""`jp.explain`: what an Optax transformation does otherwise than a torch optimizer."""

from ._explanation import Explanation as Explanation
from ._explanation import explain as explain
