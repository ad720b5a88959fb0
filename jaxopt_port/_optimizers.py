"""The optimizers, in both spellings."""

from . import rules
from .engine import Grouped, transformation

adadelta = transformation(rules.adadelta)
adafactor = transformation(rules.adafactor)
adagrad = transformation(rules.adagrad)
adam = transformation(rules.adam)
adamax = transformation(rules.adamax)
adamw = transformation(rules.adamw)
asgd = transformation(rules.asgd)
muon = transformation(rules.muon)
nadam = transformation(rules.nadam)
radam = transformation(rules.radam)
rmsprop = transformation(rules.rmsprop)
rprop = transformation(rules.rprop)
sgd = transformation(rules.sgd)
sparse_adam = transformation(rules.sparse_adam)

Adadelta = Grouped("Adadelta", adadelta)
Adafactor = Grouped("Adafactor", adafactor)
Adagrad = Grouped("Adagrad", adagrad)
Adam = Grouped("Adam", adam)
Adamax = Grouped("Adamax", adamax)
AdamW = Grouped("AdamW", adamw)
ASGD = Grouped("ASGD", asgd)
Muon = Grouped("Muon", muon)
NAdam = Grouped("NAdam", nadam)
RAdam = Grouped("RAdam", radam)
RMSprop = Grouped("RMSprop", rmsprop)
Rprop = Grouped("Rprop", rprop)
SGD = Grouped("SGD", sgd)
SparseAdam = Grouped("SparseAdam", sparse_adam)
