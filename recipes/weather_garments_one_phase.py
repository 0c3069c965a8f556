"""Fine-tune the embedded model on a question it can nearly answer, 300 pictures: all weights at once.

Source    none; what weather_garments_two_phases.py is compared with
Command   python recipes/data/weather_garments.py weather_garments
          swins train recipes/weather_garments_one_phase.py --data weather_garments
Hardware  2 CPU cores
Expected  below weather_garments_two_phases.py: steps of a fresh head pull features about that were right
Obtained  top-1 91.50 of 400 images in 141 s of 2 CPU cores that others shared; on 9,300 test images 90.81; other rates,
          seeds and the CPU time are in benchmarks/phases.csv; results/weather_garments_one_phase/
"""

from dataclasses import replace

from swins.recipe_files import find
from swins.recipes import load

TURNED = load(find("turned_garments_one_phase"))
RECIPE = replace(TURNED, optim=replace(TURNED.optim, learning_rate=1e-3), epochs=15)
